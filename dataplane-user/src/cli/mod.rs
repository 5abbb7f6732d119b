//! The command line, a file per command.
//!
//! | module | its job |
//! |---|---|
//! | [`args`] | every flag, defined once |
//! | [`config`] | `--config FILE` |
//! | `run`, `load`, `unload`, `publish`, `unpublish`, `ls`, `status`, `flows` | the command of that name |
//! | `table` | tables for people, JSON for programs |

pub mod args;
pub mod config;
mod flows;
mod load;
mod ls;
mod publish;
mod run;
mod status;
mod table;
mod unload;
mod unpublish;

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;

use self::args::{Cli, Command};
use crate::privileges;

/// Wrong usage, as clap has it for what it finds out itself.
const USAGE: u8 = 2;

/// An argument that is not what it should be: exit status 2.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct UsageError(#[from] anyhow::Error);

/// Runs the program: reads the command line, does what it says, tells of errors in one line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::builder()
                .with_default_directive(tracing::Level::WARN.into())
                .with_env_var("PORTWAY_LOG")
                .from_env_lossy(),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
    // One thread: netlink sockets and interface names belong to the network namespace of the thread that
    // asks, and nothing here is worth a second.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(dispatch(cli)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("portway: {error:#}");
            if error.is::<UsageError>() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<()> {
    let instance = cli.instance;
    let command = match cli.command {
        // Before privileges are dropped: its file may be in a folder that is closed to root's own user.
        Command::Run(args) => Command::Run(config::complete(args)?),
        other => other,
    };
    privileges::drop_excess()?;
    match command {
        Command::Run(args) => run::run(instance, args).await,
        Command::Load(args) => load::load(instance, args).await,
        Command::Unload => unload::unload(instance).await,
        Command::Publish { spec } => publish::publish(instance, &spec).await,
        Command::Unpublish { spec } => unpublish::unpublish(instance, &spec).await,
        Command::Ls(args) => ls::ls(&instance, args),
        Command::Status(args) => status::status(&instance, args),
        Command::Flows(args) => flows::flows(&instance, args),
    }
}
