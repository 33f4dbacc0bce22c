//! Synthetic addresses: what the sandbox's resolver answers an allowed name with.
//!
//! Each name gets one address out of 198.18.0.0/15 (set aside for benchmarks by RFC 2544, so nobody's
//! server has one) and keeps it for the gateway's life. When the sandbox connects to it, the address
//! says which name was meant; what that name resolves to is found out only then, outside.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};

use egret_policy::Host;

/// The names that were given an address.
#[derive(Debug)]
pub(crate) struct Names {
    most: usize,
    given: Mutex<Given>,
}

#[derive(Debug, Default)]
struct Given {
    offsets: HashMap<Host, u32>,
    /// The name at offset `n` is at index `n - 1`: the network's own address is nobody's.
    names: Vec<Host>,
}

/// All names have been given away.
#[derive(Debug)]
pub(crate) struct Full;

impl Names {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most: most.min(SIZE as usize - 2),
            given: Mutex::default(),
        }
    }

    /// The address that stands for `name`, a new one if it has none yet.
    pub(crate) fn address_of(&self, name: &Host) -> Result<Ipv4Addr, Full> {
        let given = &mut *self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&offset) = given.offsets.get(name) {
            return Ok(Ipv4Addr::from_bits(BASE | offset));
        }
        if given.names.len() >= self.most {
            return Err(Full);
        }
        given.names.push(name.clone());
        let offset = u32::try_from(given.names.len()).map_err(|_| Full)?;
        given.offsets.insert(name.clone(), offset);
        Ok(Ipv4Addr::from_bits(BASE | offset))
    }

    /// What `address` stands for; `None` if it is not synthetic at all.
    pub(crate) fn meaning(&self, address: IpAddr) -> Option<Meaning> {
        let IpAddr::V4(v4) = address.to_canonical() else {
            return None;
        };
        if v4.to_bits() & !(SIZE - 1) != BASE {
            return None;
        }
        let index = ((v4.to_bits() & (SIZE - 1)) as usize).checked_sub(1);
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        Some(
            index
                .and_then(|index| given.names.get(index))
                .map_or(Meaning::Nothing, |name| Meaning::Name(name.clone())),
        )
    }
}

/// What a synthetic address stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Name(Host),
    /// It was never given out.
    Nothing,
}

/// 198.18.0.0
const BASE: u32 = 0xc612_0000;
/// Addresses in a /15.
const SIZE: u32 = 1 << 17;
