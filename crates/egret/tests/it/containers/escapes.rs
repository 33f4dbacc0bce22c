//! Ways out of a container: what processes attempt, attempted in there as root, and what only containers have.

use super::world;
use crate::escapes::addresses::{
    ALLOW_AROUND_HOST, ALLOW_MUCH, ALLOW_PUBLIC, host_names, ipv4_notations, ipv6_forms, metadata,
    ports, special_ranges, zones,
};
use crate::escapes::names::{backwards, other_services, questions, spellings, undecided};
use crate::escapes::routing::datagrams;
use crate::world::at;
use crate::world::engine::Kind;
use crate::world::probe::refused;
use crate::world::servers::Service;

#[test]
fn what_a_process_is_refused_a_container_is_refused() {
    for kind in Kind::ALL {
        let world = world(kind);
        world.serve_everywhere(80, Service::Sink);
        let sink = world.serve_on_machine(80, Service::Sink);
        let public = [
            ipv4_notations(),
            ipv6_forms(),
            zones(),
            special_ranges(),
            datagrams(),
        ]
        .concat();
        refused(world.run_container().policy(ALLOW_PUBLIC), &public);
        refused(world.run_container().policy(ALLOW_MUCH), &metadata());
        refused(
            world.run_container().policy(ALLOW_AROUND_HOST),
            &host_names(),
        );
        world.dns.answer("www.example.com", &[at::PUBLIC]);
        let one = [questions(), undecided(), backwards(), spellings(), ports()].concat();
        refused(world.run_container().allow("www.example.com"), &one);
        refused(world.run_container(), &other_services());
        assert_eq!(world.server(sink, |sink| sink.connections()), 0);
    }
}

#[test]
fn what_a_client_is_told_about_proxies_and_addresses_does_not_matter() {
    for kind in Kind::ALL {
        let world = world(kind);
        world.dns.answer("www.example.com", &[at::PUBLIC]);
        let server = world.serve_everywhere(80, Service::Http);
        let clients = [
            "curl -sS -m 5 --noproxy '*' http://151.101.0.81/",
            "NO_PROXY='*' no_proxy='*' curl -sS -m 5 http://151.101.0.81/",
            "http_proxy=http://151.101.0.81:80 curl -sS -m 5 http://www.example.net/",
            "env -i /usr/bin/curl -sS -m 5 http://151.101.0.81/",
            "curl -sS -m 5 --proxy socks5://151.101.0.81:80 http://www.example.net/",
            "curl -sS -m 5 --noproxy '*' --resolve www.example.com:80:151.101.0.81 http://www.example.com/",
            "curl -sS -m 5 -p --connect-to www.example.com:80:151.101.0.81:80 http://www.example.com/",
            "echo '151.101.0.81 www.example.com' >> /etc/hosts; curl -sS -m 5 --noproxy '*' http://www.example.com/",
            "echo 'nameserver 10.20.0.53' > /etc/resolv.conf; curl -sS -m 5 --noproxy '*' http://www.example.net/",
        ];
        let script: String = clients
            .map(|client| format!("({client}) 2>/dev/null; echo; echo \"== $?\"\n"))
            .concat();
        let outcome = world
            .run_container()
            .args(&["--user", "0:0"])
            .allow("www.example.com")
            .client(&script);
        assert!(
            !outcome.stdout.contains("GET / for"),
            "{kind:?}: {outcome:#?}"
        );
        assert_eq!(
            outcome.stdout.matches("== ").count(),
            clients.len(),
            "{kind:?}: {outcome:#?}"
        );
        outcome.silent();
        assert_eq!(world.server(server, |server| server.connections()), 0);
    }
}
