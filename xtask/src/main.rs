//! Sets up the machine, then builds, runs and tests portway: `cargo xtask --help`.
//!
//! | file | its job |
//! |---|---|
//! | [`machine`] | what is here: distribution, root, toolchain, programs; cheap, changes nothing |
//! | [`packages`] | which distribution calls the missing programs what |
//! | [`apt`] | what Debian's archive offers, and installing from it |
//! | [`plan`], [`step`] | from those, without touching anything: what has to be done, and who can do it |
//! | [`by_hand`] | the commands to print where xtask does not install by itself |
//! | [`setup`] | says the plan, and does it |
//! | [`toolchain`] | which Rust and which linker make the eBPF programs (shared with build scripts, by `build_ebpf.rs`) |
//! | [`compile`] | cargo, and where it leaves what it built |
//! | [`run`] | `run`: portway itself, or the lab |
//! | [`bench`] | `bench`: measuring portway and what it is compared with |
//! | [`mod@test`], [`tally`] | `test`: the checks, the tests and their sum |
//! | [`soak`] | `soak`: the longest of the tests, by itself |
//! | [`matrix`] | `test --matrix`: the tests with other versions of Docker |
//! | [`vmtest`] | `vmtest`: the tests on other kernels |
//! | [`named`] | what is named on the command line, else all there is |
//! | [`outcome`], [`page`] | what came of several files of tests, also as a page of docs/ |
//! | [`command`] | programs that have to succeed |
//! | [`diagram`], [`svg`] | `diagram`: docs/packet-way.svg |

mod apt;
mod bench;
mod by_hand;
mod command;
mod compile;
mod diagram;
mod machine;
mod matrix;
mod named;
mod outcome;
mod packages;
mod page;
mod plan;
mod run;
mod setup;
mod soak;
mod step;
mod svg;
mod tally;
mod test;
mod toolchain;
mod vmtest;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

/// Sets up this machine for portway, then builds, runs or tests it.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build target/release/portway, with the eBPF programs inside.
    Build(SetUp),
    /// Build portway and run it; without Docker and without a publication, show it at work in the lab.
    Run {
        #[command(flatten)]
        set_up: SetUp,
        /// Passed on to `portway run` (or to the lab).
        #[arg(last = true, value_name = "ARGS")]
        arguments: Vec<String>,
    },
    /// Check formatting, lint, build, and run every test.
    Test {
        #[command(flatten)]
        set_up: SetUp,
        #[command(flatten)]
        selection: test::Selection,
    },
    /// Build, and measure portway against iptables and others: `cargo xtask bench --help`.
    #[command(disable_help_flag = true)]
    Bench {
        #[command(flatten)]
        set_up: SetUp,
        /// Passed on to the bench.
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "ARGS"
        )]
        arguments: Vec<String>,
    },
    /// Build, and have everything happen at random and under traffic, every packet of which is accounted for.
    Soak {
        #[command(flatten)]
        set_up: SetUp,
        #[command(flatten)]
        length: soak::Length,
    },
    /// Run the dataplane's tests on other kernels, in virtual machines; takes Debian's kernels, and Debian.
    Vmtest {
        #[command(flatten)]
        set_up: SetUp,
        #[command(flatten)]
        selection: vmtest::Selection,
    },
    /// Draw docs/packet-way.svg anew.
    Diagram,
}

#[derive(Args, Clone, Copy)]
struct SetUp {
    /// Install nothing: if anything is missing, list it and stop.
    #[arg(long)]
    no_install: bool,
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Build(set_up) => {
            setup::ensure(plan::Goal::Build, set_up.no_install)?;
            compile::portway()?;
            println!("{}", compile::release_binary("portway")?.display());
        }
        Command::Run { set_up, arguments } => run::run(set_up.no_install, &arguments)?,
        Command::Test { set_up, selection } => return test::test(set_up.no_install, &selection),
        Command::Bench { set_up, arguments } => bench::bench(set_up.no_install, &arguments)?,
        Command::Soak { set_up, length } => return soak::soak(set_up.no_install, &length),
        Command::Vmtest { set_up, selection } => {
            return vmtest::vmtest(set_up.no_install, &selection);
        }
        Command::Diagram => diagram::write()?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_reach_cargo_and_the_test_programs() {
        let line = [
            "xtask",
            "test",
            "-p",
            "portway-tests",
            "compose",
            "--no-install",
            "--",
            "--exact",
        ];
        let cli = Cli::try_parse_from(line);
        let Ok(Cli {
            command: Command::Test { set_up, selection },
        }) = cli
        else {
            panic!(
                "not understood: {:?}",
                cli.err().map(|error| error.to_string())
            );
        };
        assert!(set_up.no_install);
        assert_eq!(
            selection.cargo_arguments(),
            ["--package", "portway-tests", "compose", "--", "--exact"]
        );
    }

    #[test]
    fn what_follows_bench_is_the_benchs() {
        let line = "xtask bench --no-install --quick --only new --help";
        let cli = Cli::try_parse_from(line.split(' '));
        let Ok(Cli {
            command: Command::Bench { set_up, arguments },
        }) = cli
        else {
            panic!(
                "not understood: {:?}",
                cli.err().map(|error| error.to_string())
            );
        };
        assert!(set_up.no_install);
        assert_eq!(arguments, ["--quick", "--only", "new", "--help"]);
    }

    #[test]
    fn kernels_are_named_by_their_versions() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        assert!(parse(
            "xtask vmtest --kernel 6.1 --kernel newest --test hooks"
        ));
        assert!(!parse("xtask vmtest --kernel 5.10"));
        assert!(!parse("xtask vmtest --docs --kernel 6.1"), "a page of all");
    }

    #[test]
    fn a_soak_has_a_length_and_a_seed() {
        let cli = Cli::try_parse_from("xtask soak --minutes 0.5 --seed 7".split(' '));
        assert!(matches!(
            cli.map(|cli| cli.command),
            Ok(Command::Soak { .. })
        ));
    }

    #[test]
    fn all_packages_are_tested_unless_one_is_named() {
        assert_eq!(
            test::Selection::default().cargo_arguments(),
            ["--workspace"]
        );
    }
}
