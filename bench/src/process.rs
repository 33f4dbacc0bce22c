//! What a process has used, by the kernel's accounting.

use std::fs;
use std::time::Duration;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::Error;

/// Time of the processor that the process `id` has used since it began, in user and kernel mode, all its threads together
/// (clock_getcpuclockid(3)). In nanoseconds, where proc(5) counts in hundredths of a second.
pub(crate) fn cpu_time(id: u32) -> Result<Duration, Error> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(id)?))?;
    Ok(clock.now()?.into())
}

/// What a process has in memory, its executable's pages too, in KiB (`smaps_rollup` in proc(5)).
pub(crate) fn resident(id: u32) -> Result<u64, Error> {
    in_memory(id, &["Rss:"])
}

/// What of that no other process has in memory as well.
pub(crate) fn private(id: u32) -> Result<u64, Error> {
    in_memory(id, &["Private_Clean:", "Private_Dirty:"])
}

/// What it has written there, which its executable's pages are no part of.
pub(crate) fn written(id: u32) -> Result<u64, Error> {
    in_memory(id, &["Private_Dirty:"])
}

/// How many files it has open.
pub(crate) fn descriptors(id: u32) -> Result<usize, Error> {
    Ok(fs::read_dir(format!("/proc/{id}/fd"))?.count())
}

fn in_memory(id: u32, kinds: &[&str]) -> Result<u64, Error> {
    let path = format!("/proc/{id}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let mut sum = 0;
    for kind in kinds {
        let line = text.lines().find_map(|line| line.strip_prefix(kind));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        sum += number
            .ok_or_else(|| format!("{path} has no {kind}"))?
            .parse::<u64>()?;
    }
    Ok(sum)
}
