//! `egret policy test`: whether policies decide as the tests in them say.

use super::{
    BAD_INPUT, Bad, FINE, Page, REFUSED, cannot_print, load_as_run, one_standard_input, print_json,
    refuse_input, shown,
};
use crate::cli::Output;
use anstyle::AnsiColor;
use clap::Args;
use egret_policy::Tested;
use serde_json::json;
use std::io;

/// Arguments of `egret policy test`.
#[derive(Debug, Args)]
#[command(after_help = "\
A test is an item of `tests:`, such as

  tests:
    - allow: api.example.com
    - deny: host.docker.internal:22
    - deny: api.example.com
      resolves_to: [10.0.0.1]

Exit status: 0 if none fails (a policy without tests says so), 1 if one does, 2 if
a policy cannot be used.")]
pub(crate) struct Test {
    /// The policies; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) fn test(args: &Test) -> u8 {
    if let Err(bad) = one_standard_input(&args.files) {
        return refuse_input(&bad, args.output);
    }
    let run = |file: &String| load_as_run(file).map(|loaded| loaded.policy.run_tests());
    let ran: Vec<_> = args.files.iter().map(|file| (file, run(file))).collect();
    let failed = |tests: &Vec<Tested>| tests.iter().any(|test| !test.passed);
    let status = match () {
        () if ran.iter().any(|(_, result)| result.is_err()) => BAD_INPUT,
        () if ran.iter().flat_map(|(_, result)| result).any(failed) => REFUSED,
        () => FINE,
    };
    let printed = match args.output {
        Output::Json => {
            let files: Vec<_> = ran
                .iter()
                .map(|(file, result)| in_json(file, result))
                .collect();
            print_json(&json!({ "files": files }))
        }
        Output::Text => ran
            .iter()
            .try_for_each(|(file, result)| in_text(file, result)),
    };
    printed.map_or_else(|error| cannot_print(&error), |()| status)
}

fn in_json(file: &str, result: &Result<Vec<Tested>, Bad>) -> serde_json::Value {
    match result {
        Ok(tests) => {
            let passed = tests.iter().filter(|test| test.passed).count();
            json!({ "file": file, "valid": true, "passed": passed, "failed": tests.len() - passed, "tests": tests })
        }
        Err(bad) => bad.in_json(file),
    }
}

fn in_text(file: &str, result: &Result<Vec<Tested>, Bad>) -> io::Result<()> {
    let tests = match result {
        Ok(tests) => tests,
        Err(bad) => return bad.tell(),
    };
    let mut page = Page::for_stdout();
    let failed: Vec<_> = tests.iter().filter(|test| !test.passed).collect();
    for test in &failed {
        let Tested {
            rule,
            destination,
            explanation,
            ..
        } = test;
        page.paint(AnsiColor::Red.on_default().bold(), "FAILED");
        write!(
            page,
            " {rule}: {}: {}, but the policy says {}",
            test.expected(),
            destination.escape_debug(),
            explanation.reason
        );
        if let Some(decided) = &explanation.rule {
            write!(page, " by {decided}");
        }
        writeln!(page);
        if let Some(hint) = &explanation.hint {
            writeln!(page, "  to allow it: {}", hint.change());
        }
    }
    let file = shown(file);
    match (tests.len(), failed.len()) {
        (0, _) => writeln!(
            page,
            "{file}: no tests; add `tests:` with `- allow: HOST` and `- deny: HOST`"
        ),
        (1, 0) => writeln!(page, "{file}: 1 test passed"),
        (count, 0) => writeln!(page, "{file}: {count} tests passed"),
        (count, failed) => writeln!(page, "{file}: {failed} of {count} tests failed"),
    }
    page.print()
}
