//! `egret policy schema`: the policy language for editors.

use super::{FINE, cannot_print, print_data};
use crate::cli::Output;
use clap::Args;
use egret_policy::POLICY_SCHEMA;

/// Arguments of `egret policy schema`.
#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// A schema has one form
    #[arg(long, value_enum, default_value_t = Output::Json, hide = true)]
    output: Output,
}

pub(super) fn schema(args: &Schema) -> u8 {
    match args.output {
        Output::Json | Output::Text => {
            print_data(POLICY_SCHEMA).map_or_else(|error| cannot_print(&error), |()| FINE)
        }
    }
}
