//! `./x soak`, for a moment.

use std::path::Path;
use std::process::Command;

#[test]
fn log_servers_and_clients_agree() {
    let bench = Path::new(env!("CARGO_BIN_EXE_egret-bench"));
    let egret = bench.with_file_name("egret");
    assert!(
        egret.exists(),
        "{} is not there: run the tests with ./x test, which builds it",
        egret.display()
    );
    let output = Command::new(bench)
        .args(["soak", "0.1", "--rate", "40", "--tunnels", "2500"])
        .args(["--pace", "100", "--pace-minutes", "0.05", "--kills", "20"])
        .arg("--egret")
        .arg(egret)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    for told in [
        "tunnels: 2500 open",
        "pace, captured: ",
        "kills: 20 times",
        "mixed: at rest",
    ] {
        assert!(said.contains(told), "nothing is said of `{told}`: {said}");
    }
}
