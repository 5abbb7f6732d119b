//! `cargo xtask run`: portway itself where it has something to do, else the lab.

use std::{
    env, io,
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{compile, machine, plan::Goal, setup};

/// Sets up, builds, and becomes portway or the lab.
///
/// # Errors
/// If that does not come about; otherwise it does not return.
pub fn run(no_install: bool, arguments: &[String]) -> Result<()> {
    let command = if has_work(arguments, docker_answers()) {
        setup::ensure(Goal::Run, no_install)?;
        compile::portway()?;
        let mut portway = as_root_with_environment(&compile::release_binary("portway")?);
        portway.arg("run");
        portway
    } else {
        eprintln!(
            "xtask: no Docker here and no --publish given: this runs the lab, which brings its own"
        );
        setup::ensure(Goal::Lab, no_install)?;
        compile::portway_and_lab()?;
        let mut lab = as_root_with_environment(&compile::release_binary("portway-lab")?);
        lab.env("PORTWAY_BIN", compile::release_binary("portway")?);
        lab
    };
    become_it(command, arguments)
}

/// Whether `portway run` would have anything to publish, or is only asked about itself.
fn has_work(arguments: &[String], docker: bool) -> bool {
    const GIVES_WORK: [&str; 5] = ["--publish", "--docker", "--config", "--help", "-h"];
    let name = |argument: &str| argument.split('=').next().map(str::to_owned);
    docker
        || arguments
            .iter()
            .filter_map(|argument| name(argument))
            .any(|name| GIVES_WORK.contains(&name.as_str()))
}

/// Whether there is a Docker to follow. A DOCKER_HOST that is no socket file is taken at its word.
fn docker_answers() -> bool {
    let host = env::var("DOCKER_HOST").unwrap_or_default();
    match host.strip_prefix("unix://") {
        Some(path) => accepts(Path::new(path)),
        None if host.is_empty() => accepts(Path::new("/var/run/docker.sock")),
        None => true,
    }
}

/// Whether somebody listens there. A socket that is root's alone counts: portway runs as root.
fn accepts(socket: &Path) -> bool {
    match UnixStream::connect(socket) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

/// A program as root, through sudo if need be, with the environment kept.
pub fn as_root_with_environment(program: &Path) -> Command {
    if machine::is_root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("-E").arg(program);
    sudo
}

/// Replaces this process, so that Ctrl-C and the exit status are the program's own.
///
/// # Errors
/// If it does not start; otherwise this does not return.
pub fn become_it(mut command: Command, arguments: &[String]) -> Result<()> {
    let error = command.args(arguments).exec();
    Err(error)
        .with_context(|| format!("{} does not start", command.get_program().to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_lab_runs_where_there_is_nothing_to_publish() {
        assert!(!has_work(&[], false));
        assert!(!has_work(&arguments("--mode tc --no-docker"), false));
        assert!(has_work(&[], true));
        assert!(has_work(&arguments("--publish 9000:10.0.0.2:80"), false));
        assert!(has_work(&arguments("--publish=9000:10.0.0.2:80"), false));
        assert!(has_work(&arguments("--help"), false));
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_no_docker() {
        let path = env::temp_dir().join(format!("portway-xtask-{}.sock", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path)
            .expect("a socket in the temporary directory");
        assert!(accepts(&path));
        drop(listener);
        assert!(!accepts(&path), "its file is still there");
        std::fs::remove_file(&path).expect("the file this test made");
        assert!(!accepts(&path));
    }
}
