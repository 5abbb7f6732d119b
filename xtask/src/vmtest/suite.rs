//! The tests that run in virtual machines: those of the dataplane and its hooks, which need no Docker.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{
    command::{run, text},
    compile,
};

/// The files of tests/tests that run unless others are named.
pub const FILES: [&str; 8] = [
    "verifier",
    "hooks",
    "xdp",
    "ipv6",
    "kernel_oracle",
    "golden_packets",
    "takeover",
    "opening_flows",
];

/// Seconds after which a file's tests are given up, where the CPU is emulated.
const LIMIT: u32 = 3600;

/// What was built for the virtual machines.
#[derive(Debug)]
pub struct Built {
    programs: Vec<(String, PathBuf)>,
}

impl Built {
    /// Builds portway and these files' tests, as they are for debugging: cargo builds those anyway.
    ///
    /// # Errors
    /// Something does not compile, or there is no such file.
    pub fn new(files: &[String]) -> Result<Self> {
        run(compile::cargo().args(["build", "--package", "dataplane-user", "--bin", "portway"]))?;
        let mut cargo = compile::cargo();
        cargo.args(["test", "--package", "portway-tests", "--no-run"]);
        cargo.args(["--message-format", "json", "--bin", "portway-lab-guest"]);
        for file in files {
            cargo.args(["--test", file]);
        }
        let messages = text(&mut cargo).context("the tests do not compile")?;
        let mut programs: Vec<_> = files
            .iter()
            .map(|file| {
                let program = executable_of(&messages, file)
                    .with_context(|| format!("cargo has built no test {file}"))?;
                Ok((file.clone(), program))
            })
            .collect::<Result<_>>()?;
        for name in ["portway", "portway-lab-guest"] {
            programs.push((name.to_owned(), debug_binary(&programs[0].1, name)?));
        }
        Ok(Self { programs })
    }

    /// Their names, and where they are.
    pub fn programs(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.programs
            .iter()
            .map(|(name, path)| (name.as_str(), path.as_path()))
    }
}

/// The script that runs the tests, and says where each begins and ends. `slowness` is what
/// portway-tests' `wait::here` wants to know.
pub fn script(files: &[String], slowness: u32) -> String {
    let mut script = format!(
        "export PORTWAY_BIN=/tests/portway PORTWAY_SLOWNESS={slowness} PORTWAY_SEED=1 RUST_BACKTRACE=0\n\
         echo \"vmtest: kernel $(uname -r)\"\n"
    );
    for file in files {
        script.push_str(&format!(
            "echo 'vmtest: begin {file}'\n\
             timeout {LIMIT} /tests/{file} --test-threads=1 --color=never 2>&1\n\
             echo \"vmtest: end {file} $?\"\n"
        ));
    }
    script.push_str("echo 'vmtest: done'\n");
    script
}

/// Where cargo says that it has put a test program. Its messages are an object a line.
fn executable_of(messages: &str, test: &str) -> Option<PathBuf> {
    let target = format!("\"name\":\"{test}\"");
    let message = messages
        .lines()
        .find(|line| line.contains("\"compiler-artifact\"") && line.contains(&target))?;
    let (_, path) = message.split_once("\"executable\":\"")?;
    Some(PathBuf::from(path.split_once('"')?.0))
}

/// A program beside the folder of a test program.
fn debug_binary(test: &Path, name: &str) -> Result<PathBuf> {
    let folder = test.ancestors().nth(2).context("a test without a folder")?;
    let binary = folder.join(name);
    if !binary.is_file() {
        bail!("{} is not there", binary.display());
    }
    Ok(binary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::subject;

    #[test]
    fn all_files_are_there_and_say_what_they_are_about() {
        for file in FILES {
            assert!(!subject(file).expect(file).is_empty(), "{file}");
        }
    }

    #[test]
    fn the_program_of_a_test_is_found() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"aya\"},\"executable\":null}\n\
            {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"hooks\"},\"executable\":\"/t/deps/hooks-1\"}\n";
        assert_eq!(
            executable_of(messages, "hooks"),
            Some("/t/deps/hooks-1".into())
        );
        assert_eq!(executable_of(messages, "aya"), None);
        assert_eq!(executable_of(messages, "xdp"), None);
    }

    #[test]
    fn the_script_marks_each_file() {
        let script = script(&["hooks".into()], 10);
        assert!(script.contains("vmtest: begin hooks") && script.contains("vmtest: end hooks $?"));
        assert!(script.ends_with("echo 'vmtest: done'\n"));
    }
}
