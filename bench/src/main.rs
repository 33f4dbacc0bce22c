//! Measures Egret beside other proxies, and beside a floor: the simplest correct relay there can be.
//!
//! One run starts every subject once, in a world of its own ([`world`]), and then measures them in turn, several rounds of
//! it, so that whatever else the machine does meets them all alike. What counts is work per second of the processor that
//! the measured process used ([`process`]), and ratios within one round ([`stats`]); both hold still on a machine
//! whose clock does not.
//!
//! The generator of load ([`client`]), the servers it talks to ([`servers`]) and the floor ([`floor`]) are processes of
//! their own, and this same executable.

mod client;
mod figures;
mod floor;
mod gateway;
mod process;
mod report;
mod servers;
mod soak;
mod stats;
mod subjects;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use soak::Soak;

/// What went wrong, for people.
type Error = Box<dyn std::error::Error>;

#[derive(Parser)]
#[command(
    about = "Measures Egret beside other proxies and beside a floor",
    version
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure, and print a table
    Run(Run),
    /// Run Egret under load, long, and hold what its log says against what the servers and the clients saw
    Soak(Soak),
    /// The same, in the namespaces that `soak` makes
    #[command(hide = true)]
    Soaking(Soak),
    /// Be the servers of `soak`, and read this log
    #[command(hide = true)]
    SoakServers { log: PathBuf },
    /// Be the load of `soak`; the word is there to be found by
    #[command(hide = true)]
    SoakLoad { tag: String },
    /// Measure what is about the network, in the namespaces that `run` makes, and print JSON
    #[command(hide = true)]
    Network(Run),
    /// Measure what is about containers, with a daemon in the namespaces that `run` makes, and print JSON
    #[command(hide = true)]
    Containers(Run),
    /// Be the servers
    #[command(hide = true)]
    Servers,
    /// Be the floor
    #[command(hide = true)]
    Floor { how: floor::How, port: u16 },
    /// Be Egret's gateway, without a sandbox
    #[command(hide = true)]
    Gateway {
        port: u16,
        policy: PathBuf,
        log: PathBuf,
    },
    /// Be the generator of load: one scenario a line on standard input, one result a line on standard output
    #[command(hide = true)]
    Client,
}

/// What is measured, and for how long.
#[derive(clap::Args, Clone)]
struct Run {
    /// The figures to measure, by the beginning of their names; all of them without one
    figures: Vec<String>,
    /// Measure only these subjects, and the floor
    #[arg(long, value_delimiter = ',')]
    subjects: Vec<String>,
    /// How often everything is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long one measurement lasts, in seconds
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// The executable that is measured
    #[arg(long, default_value = "target/egret")]
    egret: PathBuf,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl Run {
    /// Whether a figure is wanted.
    fn wants(&self, figure: &str) -> bool {
        self.figures.is_empty()
            || self
                .figures
                .iter()
                .any(|wanted| figure.starts_with(wanted.as_str()))
    }

    /// Whether a subject is. The floor always is: it is what the others are compared with.
    fn measures(&self, subject: &str) -> bool {
        self.subjects.is_empty()
            || subject.starts_with("floor")
            || self
                .subjects
                .iter()
                .any(|wanted| subject.starts_with(wanted.as_str()))
    }
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(run) => figures::all(&run),
        Command::Soak(soak) => soak::apart(&soak),
        Command::Soaking(soak) => soak::run(&soak),
        Command::SoakServers { log } => soak::servers::serve(&log),
        Command::SoakLoad { tag: _ } => soak::load::obey(),
        Command::Network(run) => figures::network::measure(&run),
        Command::Containers(run) => figures::start_container::measure(&run),
        Command::Servers => servers::serve(),
        Command::Floor { how, port } => floor::serve(how, port),
        Command::Gateway { port, policy, log } => gateway::serve(port, &policy, &log),
        Command::Client => client::obey(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
