//! What a sandbox tells while it runs, beside its audit log: options, and who listens to the records.

use clap::Args;
use egret_gateway::audit::Rotation;
use std::num::NonZeroU64;
use std::str::FromStr;

/// How a command's sandbox is observed.
#[derive(Debug, Args)]
pub(crate) struct ObserveOptions {
    /// Continue the audit log in a new file when it has this size, such as 64MiB, and give the old one a number
    #[arg(long, value_name = "SIZE")]
    pub(crate) log_max_size: Option<Size>,
    /// Keep so many of the numbered files, and remove older ones; without this, all are kept
    #[arg(long, value_name = "NUMBER", requires = "log_max_size")]
    pub(crate) log_keep: Option<usize>,
}

impl ObserveOptions {
    /// The first option that was given.
    pub(crate) fn first_given(&self) -> Option<&'static str> {
        let given = [
            (self.log_max_size.is_some(), "--log-max-size"),
            (self.log_keep.is_some(), "--log-keep"),
        ];
        given
            .into_iter()
            .find_map(|(given, option)| given.then_some(option))
    }

    /// When the audit log is continued in a new file, if it is.
    pub(crate) fn rotation(&self) -> Option<Rotation> {
        let Size(at) = self.log_max_size?;
        Some(Rotation {
            at: at.get(),
            keep: self.log_keep,
        })
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(NonZeroU64);

impl FromStr for Size {
    type Err = &'static str;

    /// Reads a number, and behind it `K`, `M` or `G`, which stand for powers of 1024 and may be followed by `B` or `iB`.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let advice = "write a size, such as 500K, 64MiB or 2G";
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit.to_ascii_lowercase();
        let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            _ => return Err(advice),
        };
        let number: u64 = number.parse().map_err(|_| advice)?;
        let size = number.checked_mul(1 << shift).and_then(NonZeroU64::new);
        size.map(Self).ok_or(advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_as_people_say_them() {
        #[rustfmt::skip]
        let table = [
            ("1", Some(1)), ("4096B", Some(4096)), ("500K", Some(500 << 10)), ("64MiB", Some(64 << 20)), ("64mb", Some(64 << 20)),
            ("2G", Some(2 << 30)), ("0", None), ("", None), ("M", None), ("-1", None), ("1.5M", None), ("1T", None),
            ("99999999999999999999", None), ("18446744073709551615K", None), ("1 M", None),
        ];
        for (text, size) in table {
            let expected = size.and_then(NonZeroU64::new).map(Size);
            assert_eq!(text.parse::<Size>().ok(), expected, "{text}");
        }
    }
}
