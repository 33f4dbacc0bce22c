//! The reason codes: one word for why a decision came out as it did.
//!
//! The codes are part of Egret's public interface. They stand in the audit log, in error bodies, in `explain` and in
//! `docs/guide/policy.md`. A code is never reused for something else and never renamed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Declares the reasons once: variant, code, meaning.
macro_rules! reasons {
    ($($variant:ident $code:literal $meaning:literal)*) => {
        /// Why a decision came out as it did.
        ///
        /// Written as its [code](Reason::code) wherever it is shown or serialised.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $(#[doc = concat!("`", $code, "`: ", $meaning)] $variant,)*
        }

        impl Reason {
            /// Every reason there is, in the order of the documentation.
            pub const fn all() -> &'static [Reason] {
                &[$(Reason::$variant,)*]
            }

            /// The stable code, such as `denied.default`.
            pub const fn code(self) -> &'static str {
                match self { $(Reason::$variant => $code,)* }
            }

            /// What the code means, in one sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Reason::$variant => $meaning,)* }
            }
        }
    };
}

reasons! {
    AllowedRule "allowed.rule" "An allow entry matches the destination."
    AllowedDefaultPublic "allowed.default_public" "No entry matches, and the policy allows public destinations by default."
    AllowedHostGateway "allowed.host_gateway" "The destination is the host, and the policy opened the host gateway on this port."
    AllowedOnce "allowed.once" "No entry matches, and a person who was asked let this connection pass."
    DeniedRule "denied.rule" "A deny entry matches the destination."
    DeniedProject "denied.project" "The project's own file leaves the destination out."
    DeniedDefault "denied.default" "No entry of the policy allows the destination."
    DeniedPort "denied.port" "The policy allows the host, but not on this port."
    DeniedExecutable "denied.executable" "The policy allows the destination, but not to the program that asked."
    DeniedHostGateway "denied.host_gateway" "The destination is the host that runs the sandbox, which stays shut unless it is opened explicitly."
    DeniedHostGatewayAddressMismatch "denied.host_gateway.address_mismatch" "A host-gateway name resolved to an address that is not the host's."
    DeniedAddressPrivate "denied.address.private" "The address belongs to a private network."
    DeniedAddressHost "denied.address.host" "The name resolved to an address of the host that runs the sandbox."
    DeniedAddressLoopback "denied.address.loopback" "The destination is a loopback address or a name for one."
    DeniedAddressLinkLocal "denied.address.link_local" "The address is link-local."
    DeniedAddressMetadata "denied.address.metadata" "The destination is a cloud metadata service."
    DeniedAddressMulticast "denied.address.multicast" "The address is a multicast address."
    DeniedAddressReserved "denied.address.reserved" "The address is reserved, unspecified, or not known to be globally reachable."
    DeniedLiteralAddress "denied.literal_address" "The destination is a bare IP address that no entry allows."
    DeniedMalformed "denied.malformed" "The destination is not well-formed, or could be read in more than one way."
    DeniedResolution "denied.resolution" "The name has no address, or could not be resolved."
    DeniedNameMismatch "denied.name_mismatch" "What is spoken on the connection names another host than the one that was decided on."
    DeniedProtocol "denied.protocol" "What is spoken on the connection is not a protocol that may be spoken there."
    DeniedRequest "denied.request" "The policy allows the host, but not this request."
    DeniedLimit "denied.limit" "A limit of the gateway was reached."
}

impl Reason {
    /// Whether the code speaks of something that was allowed.
    pub const fn is_allowed(self) -> bool {
        matches!(
            self,
            Self::AllowedRule
                | Self::AllowedDefaultPublic
                | Self::AllowedHostGateway
                | Self::AllowedOnce
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A word that is not one of the reason codes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a reason code of this version")]
pub struct UnknownReason(String);

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(code: &str) -> Result<Self, UnknownReason> {
        let known = Self::all().iter().find(|reason| reason.code() == code);
        known.copied().ok_or_else(|| UnknownReason(code.to_owned()))
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = std::borrow::Cow::<str>::deserialize(deserializer)?;
        code.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_lists_exactly_the_codes_there_are() {
        let guide = include_str!("../../../docs/guide/policy.md");
        let (_, codes) = guide.split_once("## Reason codes").unwrap();
        let rows = codes
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let mut listed: Vec<_> = rows.collect();
        let mut known: Vec<_> = Reason::all().iter().map(|reason| reason.code()).collect();
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known);
    }

    #[test]
    fn codes_are_read_back_and_say_which_way_they_went() {
        for &reason in Reason::all() {
            assert_eq!(reason.code().parse(), Ok(reason));
            assert_eq!(reason.is_allowed(), reason.code().starts_with("allowed."));
            let json = serde_json::to_string(&reason).unwrap();
            assert_eq!(serde_json::from_str::<Reason>(&json).unwrap(), reason);
        }
        assert!("denied.rules".parse::<Reason>().is_err());
    }
}
