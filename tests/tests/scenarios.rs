//! The demo's scenarios come out the same without portway and with it.

use std::process::ExitCode;

use portway_tests::{
    harness::{self, Test},
    scenarios,
};

fn main() -> ExitCode {
    harness::run(
        scenarios::ALL.map(|scenario| Test::with_docker(scenario.name, move || scenario.test())),
    )
}
