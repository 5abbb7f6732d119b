//! Runs a test file's tests. A test says what it requires; what a machine lacks is skipped by name and
//! reason, or fails where everything must run.

use std::{env, process::ExitCode};

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{interrupt, requirement::Requirement};

/// A test by the name of the behaviour that it checks.
pub struct Test {
    name: &'static str,
    requires: &'static [Requirement],
    run: Box<dyn FnOnce() -> Result<()> + Send>,
}

impl Test {
    /// A test of the lab alone.
    pub fn of_lab(name: &'static str, run: impl FnOnce() -> Result<()> + Send + 'static) -> Self {
        use Requirement::{Kernel, Root};
        Self::new(name, &[Root, Kernel], run)
    }

    /// A test of portway with plain containers.
    pub fn of_portway(
        name: &'static str,
        run: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Self {
        use Requirement::{Kernel, Portway, Root};
        Self::new(name, &[Root, Kernel, Portway], run)
    }

    /// A test of portway with Docker.
    pub fn with_docker(
        name: &'static str,
        run: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Self {
        use Requirement::{Docker, Kernel, Portway, Root};
        Self::new(name, &[Root, Kernel, Docker, Portway], run)
    }

    /// A test of portway with Docker's own daemon: of its configuration, or of the rules that only it makes.
    pub fn with_dockerd(
        name: &'static str,
        run: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Self {
        use Requirement::{Dockerd, Kernel, Portway, Root};
        Self::new(name, &[Root, Kernel, Dockerd, Portway], run)
    }

    /// A test that needs `requires`.
    pub fn new(
        name: &'static str,
        requires: &'static [Requirement],
        run: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Self {
        Self {
            name,
            requires,
            run: Box::new(run),
        }
    }

    fn trial(self) -> Trial {
        Trial::ignorable_test(self.name, move || {
            let lacking = self
                .requires
                .iter()
                .find_map(|required| Some((required, required.missing()?)));
            match lacking {
                None => match (self.run)() {
                    Ok(()) => Ok(Completion::Completed),
                    Err(error) => Err(Failed::from(format!("{error:?}"))),
                },
                Some((required, why)) if env::var("CI").is_ok_and(|ci| ci == "true") => {
                    Err(Failed::from(format!("CI must have {required}: {why}")))
                }
                Some((required, why)) => {
                    println!("SKIPPED {}: {required}: {why}", self.name);
                    Ok(Completion::ignored_with(format!("{required}: {why}")))
                }
            }
        })
    }
}

/// A test file's `main`.
pub fn run(tests: impl IntoIterator<Item = Test>) -> ExitCode {
    // Before there are other threads.
    interrupt::end_lab_on_ctrl_c();
    let args = Arguments::from_args();
    libtest_mimic::run(&args, tests.into_iter().map(Test::trial).collect()).exit_code()
}
