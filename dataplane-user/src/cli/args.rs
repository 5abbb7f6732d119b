//! The command line: every flag defined once, help derived from it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{
    admission::Request,
    hooks::Preference,
    instance::Instance,
    xdp::choice::{Intake, Mode},
};

/// eBPF fast path for published container ports.
///
/// Packets that iptables would DNAT to a container are rewritten at the network interface and handed
/// straight to the container. Everything else takes the kernel's own path, untouched.
#[derive(Debug, Parser)]
#[command(name = "portway", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// Which portway: each network namespace can have its own. Pins live under /sys/fs/bpf/portway/NAME.
    #[arg(long, global = true, value_name = "NAME", default_value = "default")]
    pub instance: Instance,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load if need be, follow Docker, print what happens. Ctrl-C unloads what this command has loaded,
    /// and leaves what it found loaded.
    Run(RunArgs),
    /// Attach and pin the programs. They stay when the command ends; does nothing if they are there.
    Load(LoadArgs),
    /// Detach and remove everything. Does nothing if nothing is there.
    Unload,
    /// Publish a port or a range by hand, with no daemon needed: `portway publish 9000:172.17.0.2:80`.
    Publish {
        /// What to publish, and where.
        #[arg(
            help = "[HOST_IP:]HOST_PORT[-END]:CONTAINER_IP:PORT[-END][/tcp|udp], IPv6 in brackets"
        )]
        spec: String,
    },
    /// Take back what `publish` has published.
    Unpublish {
        /// What to take back.
        #[arg(help = "[HOST_IP:]HOST_PORT[-END][/tcp|udp]")]
        spec: String,
    },
    /// List published ports: where from, where to, container, source, state, packets.
    Ls(OutputArgs),
    /// Show what is attached, how flows are admitted and why, and the counters by reason.
    Status(OutputArgs),
    /// List live flows.
    Flows(OutputArgs),
}

/// How programs are loaded.
#[derive(Debug, Clone, Default, Args)]
pub struct LoadArgs {
    /// An interface that clients come in by; may be given more than once. [default: the interfaces of the
    /// default routes]
    #[arg(long, value_name = "IF")]
    pub external: Vec<String>,

    /// Where to take packets from outside. [default: auto]
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,

    /// By what containers take frames from XDP. With `pass`, a program instead of GRO, a datagram reaches the container
    /// for a tenth less, though not its sockets; but TCP takes three to four times the CPU where it comes not by
    /// portway: from the host, from other containers, as answers to connections of the container. [default: gro]
    #[arg(long, value_enum)]
    pub intake: Option<Intake>,

    /// Who admits flows. [default: auto]
    #[arg(long, value_enum)]
    pub admission: Option<Request>,

    /// Which TC hook to use: TCX needs Linux 6.6. [default: auto]
    #[arg(long, value_enum, value_name = "HOOK")]
    pub tc_hook: Option<Preference>,

    /// How many IPv4 flows to keep, and an eighth of that for IPv6; new ones take the place of older ones that
    /// have not proved to be real. Room for each takes some 200 bytes, used or not.
    /// [default: 262144]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1024..=16_777_216))]
    pub max_flows: Option<u32>,

    /// Go ahead where another version of portway is loaded whose flows cannot be kept: they end.
    #[arg(long)]
    pub force: bool,

    /// Have the programs tell of each new flow; `run` prints it. Costs some speed.
    #[arg(long)]
    pub trace: bool,
}

/// Arguments of `run`.
#[derive(Debug, Clone, Default, Args)]
pub struct RunArgs {
    /// How to load, if it is not loaded yet.
    #[command(flatten)]
    pub load: LoadArgs,

    /// Docker's socket. [default: DOCKER_HOST, else the usual socket if it is there]
    #[arg(long, value_name = "SOCKET", conflicts_with = "no_docker")]
    pub docker: Option<String>,

    /// Follow no Docker: static publications only.
    #[arg(long)]
    pub no_docker: bool,

    /// Publish a port or a range by hand, as `portway publish` does; may be given more than once.
    #[arg(long, value_name = "SPEC")]
    pub publish: Vec<String>,

    /// Unload at the end also what was found loaded, such as what a `run` that was killed has left, unless another
    /// `run` follows it.
    #[arg(long)]
    pub unload_at_end: bool,

    /// A TOML file with any of these flags as keys, such as `external = ["eth0"]`. Flags on the command
    /// line go before it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of commands that list something.
#[derive(Debug, Clone, Copy, Args)]
pub struct OutputArgs {
    /// Print JSON, for programs.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
