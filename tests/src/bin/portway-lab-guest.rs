//! What runs inside the lab's host and containers.

use std::{env, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use portway_tests::{
    conversation,
    guest::{self, Endpoint, GREETING},
    soak,
    system::System,
};

const USAGE: &str = "\
portway-lab-guest init [FOLDER [SHARED]...] a lab host's first process, in the file system of a folder
portway-lab-guest boot CGROUP FOLDER [SHARED]... the same, which becomes systemd
portway-lab-guest serve [SERVICE/PORT]...   servers: http, tcp and udp (echo); http says $GREETING
portway-lab-guest tell NUMBER [SERVICE/PORT]...   servers that give notice of what comes to them
portway-lab-guest get HOST:PORT             what an HTTP server says, or why there is no answer";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("portway-lab-guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    match args {
        ["init", rest @ ..] => match guest::init(system(rest).as_ref())? {},
        ["boot", cgroup, rest @ ..] => {
            let system = system(rest).context("a file system to boot in is missing")?;
            match guest::boot(cgroup, &system)? {}
        }
        ["serve", endpoints @ ..] => serve(endpoints),
        ["tell", number, endpoints @ ..] => {
            let endpoints = endpoints.iter().map(|endpoint| endpoint.parse());
            let endpoints: Vec<_> = endpoints.collect::<Result<_>>()?;
            match soak::server::serve(number.parse()?, &endpoints)? {}
        }
        ["get", target] => {
            match conversation::http_get(None, target) {
                Ok(answer) => println!("{}", answer.body),
                Err(silence) => println!("{silence}"),
            }
            Ok(())
        }
        _ => bail!("expected one of:\n{USAGE}"),
    }
}

/// What a host's first process is told of a file system.
fn system(args: &[&str]) -> Option<System> {
    let (folder, shared) = args.split_first()?;
    Some(System::new(folder, shared.iter().map(PathBuf::from)))
}

fn serve(endpoints: &[&str]) -> Result<()> {
    // A container's first process ends on a signal only if it asks for it, here before any thread
    // starts that could take it instead.
    let mut end = SigSet::empty();
    end.add(Signal::SIGTERM);
    end.add(Signal::SIGINT);
    end.thread_block()?;
    let greeting = env::var("GREETING").unwrap_or_else(|_| GREETING.into());
    for endpoint in endpoints {
        endpoint.parse::<Endpoint>()?.serve(&greeting)?;
    }
    println!("{}", guest::READY);
    end.wait()?;
    Ok(())
}
