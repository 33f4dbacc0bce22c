//! An entry for a policy's file: what the file would be with it, and the writing of it.
//!
//! What is written is exactly what was shown. A file that has become another since its policy was loaded is left alone:
//! whoever changed it may have been the program, and loading it would be its doing.

use super::app::{Change, Proposal};
use super::source::Peer;
use crate::control::{Answer, Request};
use crate::failure::Failure;
use crate::source::Origin;
use egret_gateway::Reply;
use egret_gateway::audit::Basis;
use egret_policy::{Addition, List, amend};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

/// Adds the entry for the rest of the run.
pub(crate) fn for_this_run(peer: &Peer, change: &Change) -> Result<String, Failure> {
    let entry = vec![change.entry.clone()];
    let (allow, deny) = match change.list {
        List::Allow => (entry, Vec::new()),
        List::Deny => (Vec::new(), entry),
    };
    done(peer.ask(&Request::Amend { allow, deny })?)?;
    Ok(format!("{} for the rest of this run", said(change)))
}

/// Answers a question, and leaves the policy as it is.
pub(crate) fn reply(peer: &Peer, question: &str, reply: Reply) -> Result<(), Failure> {
    let question = question.to_owned();
    done(peer.ask(&Request::Reply { question, reply })?)
}

/// What the entry would do to the policy's file. `basis` is what the sandbox goes by, by its log.
pub(crate) fn propose(
    peer: &Peer,
    change: &Change,
    basis: Option<&Basis>,
) -> Result<Proposal, Failure> {
    let origin = origin(peer)?;
    let path = file(&origin)?;
    let text = origin.read()?;
    let before = String::from_utf8(text)
        .map_err(|_| Failure::new(format!("the policy {origin} is not UTF-8")))?;
    match basis.and_then(|basis| basis.text.as_deref()) {
        Some(loaded) if loaded == before => {}
        Some(_) => {
            return Err(Failure::new(format!(
                "{} is not what was loaded: look at it, then `egret policy set {} {origin}`",
                path.display(),
                change.sandbox
            )));
        }
        None => {
            return Err(Failure::new(
                "the log does not tell what was loaded, so the file cannot be trusted to be that",
            ));
        }
    }
    let addition = Addition {
        list: change.list,
        entry: change.entry.clone(),
        comment: None,
    };
    let name = path.display().to_string();
    let after = amend(&name, before.as_bytes(), &[addition])
        .map_err(|error| Failure::new(error.to_string()))?;
    if after == before {
        return Err(Failure::new(format!(
            "{} has that entry already",
            path.display()
        )));
    }
    Ok(Proposal {
        file: name,
        lines: difference(&before, &after),
        before,
        after,
    })
}

/// Writes what was shown, and has it loaded.
pub(crate) fn write(peer: &Peer, change: &Change, proposal: &Proposal) -> Result<String, Failure> {
    let origin = origin(peer)?;
    let path = file(&origin)?;
    if path.display().to_string() != proposal.file || origin.read()? != proposal.before.as_bytes() {
        return Err(Failure::new(format!(
            "{} has just been changed by somebody else, and stays so",
            path.display()
        )));
    }
    replace(path, &proposal.after)?;
    done(peer.ask(&Request::SetPolicy {
        origin: origin.clone(),
        text: proposal.after.clone(),
    })?)?;
    Ok(format!("{} in {origin}", said(change)))
}

fn origin(peer: &Peer) -> Result<Origin, Failure> {
    match peer.ask(&Request::Status)? {
        Answer::Status(status) => status
            .origin
            .ok_or_else(|| Failure::new("it has no policy file; r is for this run")),
        _ => Err(Failure::new("the sandbox does not say what its policy is")),
    }
}

fn file(origin: &Origin) -> Result<&Path, Failure> {
    origin.file().ok_or_else(|| {
        Failure::new(format!(
            "the profile {origin} has no file; r is for this run"
        ))
    })
}

fn said(change: &Change) -> String {
    match change.list {
        List::Allow => format!("{} is allowed", change.entry),
        List::Deny => format!("{} is denied", change.entry),
    }
}

fn done(answer: Answer) -> Result<(), Failure> {
    match answer {
        Answer::Done => Ok(()),
        Answer::Refused(why) => Err(Failure::new(why)),
        _ => Err(Failure::new("the sandbox answers something else")),
    }
}

/// Puts a text into a file that stays the same one: what protects it from the program is a mount, and that is of this file.
fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::because(format_args!("cannot write {}", path.display()), &error)
    };
    let mut file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.set_len(text.len() as u64))
        .and_then(|()| file.sync_all())
        .map_err(failed)
}

/// The lines that differ, with those around them: ` `, `-` or `+` before each.
fn difference(before: &str, after: &str) -> Vec<String> {
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let same = |(a, b): &(&&str, &&str)| a == b;
    let first = old.iter().zip(&new).take_while(same).count();
    let most = old.len().min(new.len()) - first;
    let last = old.iter().rev().zip(new.iter().rev()).take(most);
    let last = last.take_while(same).count();
    let around = |lines: &[&str], from: usize, to: usize, sign: char| {
        let lines = lines.get(from..to).unwrap_or_default().iter();
        lines
            .map(|line| format!("{sign}{}", egret_policy::visible(line)))
            .collect::<Vec<_>>()
    };
    let until = new.len() - last;
    [
        around(&old, first.saturating_sub(AROUND), first, ' '),
        around(&old, first, old.len() - last, '-'),
        around(&new, first, until, '+'),
        around(&new, until, (until + AROUND).min(new.len()), ' '),
    ]
    .concat()
}

/// Lines that are shown around what changes.
const AROUND: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_what_changes_and_a_little_around_it() {
        #[rustfmt::skip]
        let table = [
            ("a\nb\nc\nd\ne\n", "a\nb\nc\nX\nd\ne\n", &[" b", " c", "+X", " d", " e"][..]),
            ("a\nb\n",          "a\nb\nc\n",          &[" a", " b", "+c"]),
            ("a\n",             "b\n",                &["-a", "+b"]),
            ("a\na\n",          "a\na\na\n",          &[" a", " a", "+a"]),
            ("",                "a\n",                &["+a"]),
            ("a\nb: [x]\nc\n",  "a\nb:\n- x\n- y\nc\n", &[" a", "-b: [x]", "+b:", "+- x", "+- y", " c"]),
        ];
        for (before, after, expected) in table {
            assert_eq!(difference(before, after), expected, "{before:?} {after:?}");
        }
    }
}
