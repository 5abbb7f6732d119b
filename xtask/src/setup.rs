//! Saying what set-up will do, then doing it.

use std::{env, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::{self, Archive},
    by_hand,
    machine::{self, Machine},
    plan::{self, Goal, Plan},
    step::{DENY_VERSION, LINKER_VERSION, Step},
    toolchain::{self, LINKED_TOOLCHAIN, LINKER, Toolchain},
};

/// Makes the machine ready for the goal, if it is not, and says which toolchain it has.
///
/// # Errors
/// If something required is missing and may not (`no_install`) or cannot be installed.
pub fn ensure(goal: Goal, no_install: bool) -> Result<()> {
    let machine = Machine::probe(goal)?;
    let mut plan = Plan::new(goal, &machine, &Archive::default());
    if !plan.is_empty() && machine.apt {
        let needs_lists =
            !plan.by_hand.is_empty() || machine.missing.iter().any(|program| !program.optional);
        if needs_lists && !no_install && machine.can_be_root() {
            apt::refresh();
        }
        plan = Plan::new(
            goal,
            &machine,
            &Archive::read(&plan::package_names(&machine)),
        );
    }
    for note in &plan.notes {
        eprintln!("xtask: {note}");
    }
    refuse(goal, &plan, &machine, no_install)?;
    if plan.steps().next().is_some() {
        eprintln!("xtask: set-up on {} will\n{}", machine.os.name, list(&plan));
        carry_out(&plan)?;
    }
    let toolchain = Toolchain::find()?.with_context(|| {
        format!(
            "after set-up there is still no Rust for BPF: `rustc` on PATH is {}, not the one in /usr; \
             put /usr/bin before it",
            toolchain::find_program("rustc").map_or("missing".to_owned(), |path| path.display().to_string())
        )
    })?;
    let linker = toolchain::fitting_linker(&toolchain)
        .context("after set-up the linker still does not fit")?;
    eprintln!(
        "xtask: eBPF toolchain: {toolchain}, linked by {}",
        linker.path.display()
    );
    Ok(())
}

/// Stops, with all there is to say, where set-up must not or cannot do what is required.
fn refuse(goal: Goal, plan: &Plan, machine: &Machine, no_install: bool) -> Result<()> {
    if !plan.by_hand.is_empty() {
        let commands = by_hand::commands(machine, &plan.by_hand).join("\n  ");
        bail!(
            "set-up cannot install all that is missing on {}; run these commands, then try again:\n  {commands}",
            machine.os.name
        );
    }
    if no_install && plan.steps().next().is_some() {
        bail!("--no-install is given, but set-up has to\n{}", list(plan));
    }
    if plan.required.iter().any(Step::needs_root) && !machine.can_be_root() {
        bail!(
            "set-up needs root, and there is no sudo; run as root, for it has to\n{}",
            list(plan)
        );
    }
    if matches!(goal, Goal::Run | Goal::Lab) && !machine.can_be_root() {
        bail!("portway and its lab run as root only, and there is no sudo: run this as root");
    }
    Ok(())
}

fn list(plan: &Plan) -> String {
    let lines: Vec<_> = plan.steps().map(|step| format!("  - {step}")).collect();
    lines.join("\n")
}

fn carry_out(plan: &Plan) -> Result<()> {
    for step in &plan.required {
        perform(step)?;
    }
    for step in &plan.wished {
        if let Err(error) = perform(step) {
            eprintln!("xtask: {error:#}; going on, what needs it is skipped");
        }
    }
    Ok(())
}

fn perform(step: &Step) -> Result<()> {
    match step {
        Step::Apt(packages) => apt::install(packages),
        Step::RustupNightly => checked(
            Command::new("rustup")
                .args(["toolchain", "install", "nightly"])
                .args(["--profile", "minimal", "--component", "rust-src"]),
            "rustup could not install the nightly toolchain",
        ),
        Step::LinkToolchain => checked(
            Command::new("rustup").args(["toolchain", "link", LINKED_TOOLCHAIN, "/usr"]),
            "rustup could not link the toolchain in /usr",
        ),
        Step::Linker(llvm) => install_linker(*llvm),
        Step::RustupComponents(components) => checked(
            Command::new("rustup")
                .args(["component", "add"])
                .args(components),
            "rustup could not install the components for the checks",
        ),
        Step::Deny => install_deny(),
        Step::Bpffs => checked(
            as_root("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]),
            "the BPF file system cannot be mounted at /sys/fs/bpf (in a container, that takes privileges)",
        ),
    }
}

fn install_linker(llvm: u32) -> Result<()> {
    let mut cargo = cargo_install(LINKER, LINKER_VERSION);
    cargo
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
        ])
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"));
    checked(&mut cargo, "cargo could not install bpf-linker")
}

/// Unoptimized: it runs for a second, and is compiled three times as fast.
fn install_deny() -> Result<()> {
    let mut cargo = cargo_install("cargo-deny", DENY_VERSION);
    cargo.arg("--debug").env("CARGO_PROFILE_DEV_DEBUG", "false");
    checked(&mut cargo, "cargo could not install cargo-deny")
}

fn cargo_install(package: &str, version: &str) -> Command {
    let mut cargo = Command::new(machine::cargo());
    cargo
        .args(["install", package, "--version", version])
        .args(["--locked", "--force"])
        // Its artifacts are of no use to the workspace.
        .env_remove("CARGO_TARGET_DIR")
        // From here the workspace's own configuration would apply.
        .current_dir(env::temp_dir());
    cargo
}

fn checked(command: &mut Command, failure: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("{failure}: {program} does not start"))?;
    if !status.success() {
        bail!("{failure}: {program}'s messages above say why");
    }
    Ok(())
}

/// A command that runs as root, through sudo if need be.
pub fn as_root(program: &str) -> Command {
    if machine::is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}
