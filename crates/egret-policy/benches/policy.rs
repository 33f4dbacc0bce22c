//! How long a policy takes to become ready, and to decide: `cargo bench -p egret-policy`.
//!
//! The goals: a policy of 100,000 entries compiles in 0.3 s and 64 MiB, and decides in a microsecond, at most one and
//! a half times as long as one of 10 entries. The allocations that divan shows are of one call.
#![expect(
    clippy::expect_used,
    reason = "a benchmark has nobody to hand an error to"
)]

use std::fmt::Write;
use std::net::IpAddr;

use divan::{AllocProfiler, Bencher, black_box};
use egret_policy::{Denial, Destination, HostAddresses, Matcher, Permit, Policy};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const SIZES: [usize; 3] = [10, 1_000, 100_000];
const LARGEST: usize = 100_000;

fn main() {
    divan::main();
}

#[divan::bench(args = SIZES)]
fn decide_allowed_name(bencher: Bencher<'_, '_>, entries: usize) {
    decides(bencher, entries, "host-0.zone-0.example:443", true);
}

#[divan::bench(args = SIZES)]
fn decide_allowed_below_a_wildcard(bencher: Bencher<'_, '_>, entries: usize) {
    decides(bencher, entries, "any.host-7.zone-7.example:443", true);
}

#[divan::bench(args = SIZES)]
fn decide_denied_by_default(bencher: Bencher<'_, '_>, entries: usize) {
    decides(bencher, entries, "elsewhere.example.com:443", false);
}

#[divan::bench(args = SIZES)]
fn decide_denied_by_an_entry(bencher: Bencher<'_, '_>, entries: usize) {
    decides(bencher, entries, "a.host-9.zone-9.example:443", false);
}

/// A hundred labels, none of which any entry names.
#[divan::bench(args = SIZES)]
fn decide_deep_name(bencher: Bencher<'_, '_>, entries: usize) {
    decides(
        bencher,
        entries,
        &format!("{}example.com:443", "a.".repeat(100)),
        false,
    );
}

/// A different name each time, in no order: the caches of the processor do not hold what it needs.
#[divan::bench(args = SIZES, sample_size = 1000)]
fn decide_names_in_turn(bencher: Bencher<'_, '_>, entries: usize) {
    let matcher = parse(&text(entries)).compile();
    let hosts = HostAddresses::new([]);
    // A step that has no divisor with the number of entries visits all of them.
    let mut order = (0..entries).map(|n| n * 7_919 % entries).cycle();
    let next = || {
        let n = order.next().expect("it never ends");
        destination(&format!("host-{n}.zone-{}.example:443", n % 1000))
    };
    bencher
        .with_inputs(next)
        .bench_local_refs(|to| decide(&matcher, to, &hosts).is_ok());
}

/// As many forms of wildcards inside patterns as a policy may have: each is a look-up of its own.
#[divan::bench]
fn decide_with_256_forms_of_wildcards(bencher: Bencher<'_, '_>) {
    let forms = (1..=16).flat_map(|front| (1..=16).map(move |back| (front, back)));
    let forms = forms
        .map(|(front, back)| format!("{}*{}.example.com", "a".repeat(front), "b".repeat(back)));
    let forms = forms.collect::<Vec<_>>().join("\", \"");
    let policy = parse(&format!("{{\"version\": 1, \"allow\": [\"{forms}\"]}}"));
    let (matcher, hosts) = (policy.compile(), HostAddresses::new([]));
    let to = destination(&format!("{}.example.com", "c".repeat(63)));
    bencher.bench(|| decide(&matcher, black_box(&to), &hosts));
}

#[divan::bench(args = SIZES)]
fn decide_allowed_address(bencher: Bencher<'_, '_>, entries: usize) {
    decides(bencher, entries, "11.0.0.8:443", true);
}

#[divan::bench(args = SIZES)]
fn decide_denied_address(bencher: Bencher<'_, '_>, entries: usize) {
    decides(bencher, entries, "[2606:4700::1111]:443", false);
}

#[divan::bench(args = SIZES)]
fn vet_four_addresses(bencher: Bencher<'_, '_>, entries: usize) {
    let matcher = parse(&text(entries)).compile();
    let hosts = HostAddresses::new([]);
    let to = destination("host-0.zone-0.example:443");
    let mut permit = decide(&matcher, &to, &hosts).expect("allowed");
    let answer = ["1.1.1.1", "1.0.0.1", "2606:4700::1111", "2606:4700::1001"];
    let answer: Vec<IpAddr> = answer
        .iter()
        .map(|address| address.parse().expect("an address"))
        .collect();
    bencher.bench_local(|| permit.vet(black_box(&answer), &hosts));
}

#[divan::bench(sample_count = 10)]
fn parse_100_000(bencher: Bencher<'_, '_>) {
    let text = text(LARGEST);
    bencher.bench(|| parse(black_box(&text)));
}

#[divan::bench(sample_count = 10)]
fn compile_100_000(bencher: Bencher<'_, '_>) {
    let policy = parse(&text(LARGEST));
    bencher.bench(|| black_box(&policy).compile());
}

fn decides(bencher: Bencher<'_, '_>, entries: usize, to: &str, allowed: bool) {
    let matcher = parse(&text(entries)).compile();
    let hosts = HostAddresses::new([]);
    let to = destination(to);
    assert_eq!(decide(&matcher, &to, &hosts).is_ok(), allowed, "{to}");
    bencher.bench(|| decide(&matcher, black_box(&to), &hosts));
}

fn decide(matcher: &Matcher, to: &Destination, hosts: &HostAddresses) -> Result<Permit, Denial> {
    matcher.decide(to, None, hosts)
}

fn destination(text: &str) -> Destination {
    Destination::from_user(text).expect("a destination")
}

fn parse(text: &str) -> Policy {
    let parsed = Policy::parse("policy.yaml", text.as_bytes());
    parsed.expect("the policy is valid").policy
}

/// A policy of so many entries: of each ten, five names, a pattern of each kind, an address, and a deny.
fn text(entries: usize) -> String {
    let (mut allow, mut deny) = (String::from("allow:\n"), String::from("deny:\n"));
    for n in 0..entries {
        let name = format!("host-{n}.zone-{}.example", n % 1000);
        let address = format!("11.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255);
        let line = match n % 10 {
            5 => writeln!(allow, "  - \"*.{name}:443\""),
            6 => writeln!(allow, "  - .{name}"),
            7 => writeln!(allow, "  - \"**.{name}\""),
            8 => writeln!(allow, "  - {address}:443"),
            9 => writeln!(deny, "  - \"**.{name}\""),
            _ => writeln!(allow, "  - {name}:443"),
        };
        line.expect("a string takes everything");
    }
    format!("version: 1\n{allow}{deny}")
}
