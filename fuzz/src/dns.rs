//! The sandbox's resolver: its answers say nothing but what the policy allows, as another library reads question and
//! answer.

use std::cell::OnceCell;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};

use domain::base::Message;
use domain::base::iana::{Class, Rcode, Rtype};
use domain::rdata::{A, Aaaa};
use egret_gateway::fuzz::Harness;

use crate::holds;

/// A message to the resolver.
pub fn dns(data: &[u8]) {
    thread_local! {
        static HARNESS: OnceCell<Harness> = const { OnceCell::new() };
    }
    let answer = HARNESS.with(|kept| {
        let harness =
            kept.get_or_init(|| Harness::new(POLICY, File::create("/dev/null").expect("a log")));
        harness.dns(data)
    });
    holds(tells_only_what_is_allowed(data, answer.as_deref()));
}

const POLICY: &str = "version: 1\nallow: [a.example, '*.b.example']\n";

fn tells_only_what_is_allowed(question: &[u8], answer: Option<&[u8]>) -> Result<(), String> {
    let Some(answer) = answer else {
        let is_question = question.len() >= 12 && question[2] & 0x80 == 0;
        return match is_question {
            true => Err("no answer".into()),
            false => Ok(()),
        };
    };
    let answer = Message::from_octets(answer).map_err(|error| format!("no message: {error}"))?;
    let header = answer.header();
    if !header.qr() || question.get(..2) != Some(&header.id().to_be_bytes()) {
        return Err("not an answer to this".into());
    }
    let counts = answer.header_counts();
    let mut addresses = Vec::new();
    let records = answer.answer().map_err(|error| error.to_string())?;
    for record in records {
        let record = record.map_err(|error| error.to_string())?;
        let v4 = record.to_record::<A>().ok().flatten();
        let v6 = record.to_record::<Aaaa>().ok().flatten();
        addresses.push(match (v4, v6) {
            (Some(a), _) => IpAddr::V4(a.data().addr()),
            (_, Some(aaaa)) => IpAddr::V6(aaaa.data().addr()),
            _ => return Err("a record that is no address".into()),
        });
    }
    if addresses.len() > 1 || addresses.len() != usize::from(counts.ancount()) {
        return Err(format!("{} answers", counts.ancount()));
    }
    // Nobody else is named.
    if counts.nscount() != 0 || counts.arcount() > 1 {
        return Err("more than was asked for".into());
    }
    let Some(address) = addresses.pop() else {
        return Ok(());
    };
    if header.rcode() != Rcode::NOERROR {
        return Err(format!("an address, and {}", header.rcode()));
    }
    let asked = Message::from_octets(question).map_err(|error| error.to_string())?;
    let asked = asked.sole_question().map_err(|error| error.to_string())?;
    if asked.qclass() != Class::IN {
        return Err(format!("an address, of class {}", asked.qclass()));
    }
    let name = asked.qname().to_string().to_ascii_lowercase();
    let name = name.trim_end_matches('.');
    let is_localhost = name == "localhost" || name.ends_with(".localhost");
    let below = name.strip_suffix(".b.example");
    let is_allowed = name == "a.example" || below.is_some_and(|label| !label.contains('.'));
    let fits = match (asked.qtype(), address) {
        (Rtype::A, IpAddr::V4(v4)) if is_localhost => v4 == Ipv4Addr::LOCALHOST,
        (Rtype::AAAA, IpAddr::V6(v6)) if is_localhost => v6.is_loopback(),
        (Rtype::A, IpAddr::V4(v4)) => {
            is_allowed && v4.octets()[0] == 198 && v4.octets()[1] & 0xfe == 18
        }
        _ => false,
    };
    match fits {
        true => Ok(()),
        false => Err(format!("{name} {} is {address}", asked.qtype())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question of one record, or an answer with an address to it.
    fn message(name: &str, kind: u16, address: Option<[u8; 4]>) -> Vec<u8> {
        let flags = if address.is_some() { 0x80 } else { 0 };
        let answers = u8::from(address.is_some());
        let mut message = vec![1, 2, flags, 0, 0, 1, 0, answers, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend(label.as_bytes());
        }
        message.push(0);
        message.extend([kind.to_be_bytes(), [0, 1]].concat());
        if let Some(address) = address {
            message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
            message.extend(address);
        }
        message
    }

    #[test]
    fn a_resolver_that_tells_too_much_is_noticed() {
        let ours = Some([198, 18, 0, 1]);
        #[rustfmt::skip]
        let table = [
            ("a.example",     1,  ours,                  true ),
            ("x.b.example",   1,  ours,                  true ),
            ("localhost",     1,  Some([127, 0, 0, 1]),  true ),
            ("c.example",     1,  ours,                  false),
            ("x.y.b.example", 1,  ours,                  false),
            ("a.example",     16, ours,                  false),
            ("a.example",     1,  Some([93, 184, 216, 34]), false),
            ("localhost",     1,  ours,                  false),
        ];
        for (name, kind, address, is_good) in table {
            let question = message(name, kind, None);
            let answer = message(name, kind, address);
            let judged = tells_only_what_is_allowed(&question, Some(&answer));
            assert_eq!(judged.is_ok(), is_good, "{name} {address:?}: {judged:?}");
        }
        let question = message("a.example", 1, None);
        assert!(tells_only_what_is_allowed(&question, None).is_err());
        assert!(tells_only_what_is_allowed(&question, Some(&question)).is_err());
        assert!(tells_only_what_is_allowed(b"", None).is_ok());
    }
}
