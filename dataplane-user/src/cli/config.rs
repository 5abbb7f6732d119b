//! `--config FILE`: the flags of `run` as TOML.

use std::{fs, path::Path};

use anyhow::{Context as _, anyhow};
use serde::Deserialize;

use super::{
    UsageError,
    args::{LoadArgs, RunArgs},
};
use crate::{
    admission::Request,
    hooks::Preference,
    xdp::choice::{Intake, Mode},
};

/// The file's content: the flags of `run`, by their names.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct File {
    external: Vec<String>,
    mode: Option<Mode>,
    intake: Option<Intake>,
    admission: Option<Request>,
    tc_hook: Option<Preference>,
    max_flows: Option<u32>,
    force: bool,
    trace: bool,
    docker: Option<String>,
    no_docker: bool,
    publish: Vec<String>,
    unload_at_end: bool,
}

/// Fills up what the command line has left open with what its `--config` file says.
pub fn complete(args: RunArgs) -> anyhow::Result<RunArgs> {
    match &args.config {
        None => Ok(args),
        Some(path) => {
            let text = fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let file = parse(path, &text)?;
            Ok(merge(args, file))
        }
    }
}

/// Reads the file's content.
///
/// # Errors
///
/// A [`UsageError`] in one line, which begins with `path` and names the line in the file where it can.
pub fn parse(path: &Path, text: &str) -> anyhow::Result<File> {
    let file: File = toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        UsageError(anyhow!(
            "{}:{line}: {}",
            path.display(),
            error.message().replace('\n', " ")
        ))
    })?;
    if file.docker.is_some() && file.no_docker {
        return Err(UsageError(anyhow!(
            "{}: docker and no-docker contradict each other: leave one out",
            path.display()
        ))
        .into());
    }
    Ok(file)
}

/// What `given` says, else what `file` says. Lists are not added up: the command line's replaces the
/// file's.
fn merge(given: RunArgs, file: File) -> RunArgs {
    fn list(given: Vec<String>, file: Vec<String>) -> Vec<String> {
        if given.is_empty() { file } else { given }
    }
    let says_docker = given.docker.is_some() || given.no_docker;
    let (docker, no_docker) = if says_docker {
        (given.docker, given.no_docker)
    } else {
        (file.docker, file.no_docker)
    };
    RunArgs {
        load: LoadArgs {
            external: list(given.load.external, file.external),
            mode: given.load.mode.or(file.mode),
            intake: given.load.intake.or(file.intake),
            admission: given.load.admission.or(file.admission),
            tc_hook: given.load.tc_hook.or(file.tc_hook),
            max_flows: given.load.max_flows.or(file.max_flows),
            force: given.load.force || file.force,
            trace: given.load.trace || file.trace,
        },
        docker,
        no_docker,
        publish: list(given.publish, file.publish),
        unload_at_end: given.unload_at_end || file.unload_at_end,
        config: given.config,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<File, String> {
        parse(Path::new("portway.toml"), text).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn every_flag_has_its_key() {
        let args = read(
            "external = [\"eth0\", \"eth1\"]\nmode = \"xdp-generic\"\nintake = \"pass\"\nadmission = \"direct\"\ntc-hook = \"clsact\"\n\
             max-flows = 4096\ndocker = \"/run/docker.sock\"\npublish = [\"9000:10.0.0.2:80\"]\n\
             unload-at-end = true\n",
        )
        .expect("a good file");
        assert_eq!(args.external, ["eth0", "eth1"]);
        assert_eq!(args.mode, Some(Mode::XdpGeneric));
        assert_eq!(args.intake, Some(Intake::Pass));
        assert_eq!(args.admission, Some(Request::Direct));
        assert_eq!(args.max_flows, Some(4096));
        assert_eq!(args.docker.as_deref(), Some("/run/docker.sock"));
        assert_eq!(args.publish, ["9000:10.0.0.2:80"]);
        assert!(args.unload_at_end);
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, expected) in [
            ("mode = \"fast\"", "portway.toml:1: "),
            (
                "\n\nexternl = []",
                "portway.toml:3: unknown field `externl`",
            ),
            ("external = \"eth0\"", "portway.toml:1: invalid type"),
            ("docker = \"x\"\nno-docker = true", "contradict each other"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let file =
            read("external = [\"eth0\"]\nadmission = \"auto\"\ndocker = \"/a\"").expect("file");
        let given = RunArgs {
            load: LoadArgs {
                admission: Some(Request::Direct),
                ..LoadArgs::default()
            },
            no_docker: true,
            ..RunArgs::default()
        };
        let merged = merge(given, file);
        assert_eq!(merged.load.external, ["eth0"]);
        assert_eq!(merged.load.admission, Some(Request::Direct));
        assert_eq!((merged.docker, merged.no_docker), (None, true));
    }
}
