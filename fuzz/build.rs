//! Builds llhttp, the HTTP parser of Node.js, from where the package `node-llhttp` of Debian and Ubuntu puts its sources.

use std::path::Path;

const SOURCES: &str = "/usr/share/llhttp";
const HEADERS: &str = "/usr/share/include/llhttp";

fn main() {
    assert!(
        Path::new(SOURCES).is_dir(),
        "there is no {SOURCES}: install the package node-llhttp, as ./x fuzz does"
    );
    let files = ["api.c", "http.c", "llhttp.c"].map(|name| Path::new(SOURCES).join(name));
    println!("cargo::rerun-if-changed=src/llhttp.c");
    cc::Build::new()
        .files(files)
        .file("src/llhttp.c")
        .include(HEADERS)
        .warnings(false)
        .compile("llhttp");
}
