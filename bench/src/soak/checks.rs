//! What has to be equal.

use super::sandbox::Rest;
use super::servers::{ECHO, GREETING, HTTP, RESET, REVOKED, SINK, STALL, TRICKLE};
use super::tally::{Flow, Report, Tally, Wrong};

/// Holds what the clients saw against what the servers saw, and what the log says: for a gateway that was not killed, when
/// nothing is open.
pub(crate) fn equal(clients: &Tally, report: &Report) -> Wrong {
    let mut wrong = undisturbed(report);
    wrong.append(clients.failed.clone());
    let log = &report.log;
    let mut equal = |what: &str, numbers: [(&str, u64); 2]| {
        let [(one, left), (other, right)] = numbers;
        if left != right {
            wrong.add(format!("{what}: {one} say {left}, and {other} say {right}"));
        }
    };
    for port in [ECHO, SINK, TRICKLE, GREETING, HTTP, RESET, STALL, REVOKED] {
        let flow = |flows: &super::tally::Flows| flows.get(&port).copied().unwrap_or_default();
        let (client, server, closed) =
            (flow(&clients.flows), flow(&report.used), flow(&log.closed));
        let dialled = log.dialled.get(&port).copied().unwrap_or_default();
        let at = |what: &str| format!("{what} at port {port}");
        equal(
            &at("connections"),
            [
                ("decisions in the log", dialled),
                ("their ends there", closed.connections),
            ],
        );
        // A name may be taken away between its being dialled and its first byte.
        if port == REVOKED {
            continue;
        }
        equal(
            &at("connections"),
            [
                ("clients", client.connections),
                ("servers", server.connections),
            ],
        );
        equal(
            &at("connections"),
            [
                ("servers", server.connections),
                ("decisions in the log", dialled),
            ],
        );
        let bytes = |flow: Flow| [("up", flow.up), ("down", flow.down)];
        // What is on its way when a connection is broken off is lost.
        if port == RESET || port == STALL {
            continue;
        }
        for ((way, server), (_, log)) in bytes(server).into_iter().zip(bytes(closed)) {
            equal(
                &at(&format!("bytes {way}")),
                [("servers", server), ("ends in the log", log)],
            );
        }
        // Clients do not count the heads of requests.
        if port == HTTP {
            continue;
        }
        for ((way, client), (_, server)) in bytes(client).into_iter().zip(bytes(server)) {
            equal(
                &at(&format!("bytes {way}")),
                [("clients", client), ("servers", server)],
            );
        }
    }
    equal(
        "refusals",
        [
            ("clients", clients.refused),
            ("decisions in the log", log.refused),
        ],
    );
    wrong
}

/// What has to hold even when the gateway was killed: nothing passed undecided, and nothing is on record that did not
/// happen.
pub(crate) fn undisturbed(report: &Report) -> Wrong {
    let mut wrong = report.wrong.clone();
    for (port, &dialled) in &report.log.dialled {
        // What is decided there is requests, and connections are kept for more of them.
        if *port == HTTP {
            continue;
        }
        let accepted = report.accepted.get(port).copied().unwrap_or_default();
        if dialled > accepted {
            wrong.add(format!("port {port}: the log says that {dialled} connections were made, and the server has seen {accepted}"));
        }
    }
    for port in [ECHO, SINK, TRICKLE, GREETING] {
        let flow = |flows: &super::tally::Flows| flows.get(&port).copied().unwrap_or_default();
        let (seen, told) = (flow(&report.used), flow(&report.log.closed));
        if told.up > seen.up || told.down > seen.down || told.connections > seen.connections {
            wrong.add(format!(
                "port {port}: the log says {told:?}, and the server has seen {seen:?}"
            ));
        }
    }
    wrong
}

/// Whether a process at rest holds what it held. It keeps some pipes and buffers for reuse, and the allocator some memory.
pub(crate) fn returned(fresh: &Rest, warm: &Rest, after: &Rest) -> Wrong {
    let mut wrong = Wrong::default();
    if after.descriptors > fresh.descriptors + PIPES {
        wrong.add(format!(
            "descriptors: {} at first, and {} in the end",
            fresh.descriptors, after.descriptors
        ));
    }
    if after.written > warm.written + MEMORY {
        wrong.add(format!(
            "memory: {} KiB written before, and {} KiB in the end",
            warm.written, after.written
        ));
    }
    if after.threads != fresh.threads {
        wrong.add(format!(
            "threads: {} at first, and {} in the end",
            fresh.threads, after.threads
        ));
    }
    wrong
}

/// Descriptors of pipes that the gateway keeps for reuse, 32 of them.
const PIPES: usize = 64;
/// In KiB: the 32 buffers of 64 KiB that it keeps, and as much for what the allocator has not given back.
const MEMORY: u64 = 4 << 10;
