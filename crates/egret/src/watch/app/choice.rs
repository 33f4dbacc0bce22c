//! Which rows are shown, and which come first.

use crate::watch::model::{Row, State};

/// Which rows are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Filter {
    #[default]
    All,
    Refused,
    Allowed,
    Open,
}

/// Which rows come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sort {
    #[default]
    Recent,
    Count,
    Bytes,
    Name,
}

impl Filter {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Refused => "refused",
            Self::Allowed => "allowed",
            Self::Open => "open",
        }
    }

    pub(super) const fn next(self) -> Self {
        match self {
            Self::All => Self::Refused,
            Self::Refused => Self::Allowed,
            Self::Allowed => Self::Open,
            Self::Open => Self::All,
        }
    }

    pub(super) fn shows(self, row: &Row) -> bool {
        match self {
            Self::All => true,
            Self::Refused => row.refused > 0,
            Self::Allowed => row.state != State::Refused,
            Self::Open => row.open() > 0,
        }
    }
}

impl Sort {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Recent => "recent",
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::Name => "name",
        }
    }

    pub(super) const fn next(self) -> Self {
        match self {
            Self::Recent => Self::Count,
            Self::Count => Self::Bytes,
            Self::Bytes => Self::Name,
            Self::Name => Self::Recent,
        }
    }
}
