//! What has to be done so that a goal can be reached. Pure: from what the machine has and what the
//! archive offers, to a list of steps.

use crate::{
    apt::{Archive, RustPackages},
    machine::{DENY, Machine},
    packages::Program,
    step::Step,
};

/// What the machine is set up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Compile portway.
    Build,
    /// Run portway.
    Run,
    /// Run the lab.
    Lab,
    /// Run every check and test; what needs something that cannot be had is skipped.
    Test,
}

impl Goal {
    /// Whether it needs the programs the lab is made of.
    pub fn wants_lab(self) -> bool {
        matches!(self, Self::Lab | Self::Test)
    }
}

/// The LLVMs bpf-linker can be built for, the newest first.
pub const LINKER_LLVMS: [u32; 3] = [23, 22, 21];

/// The oldest LLVM a nightly comes with nowadays, as long as it is not there to be asked.
const NIGHTLY_LLVM: u32 = 22;

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Without these the goal cannot be reached.
    pub required: Vec<Step>,
    /// These it can do without; each may fail.
    pub wished: Vec<Step>,
    /// What stays missing, and what that means.
    pub notes: Vec<String>,
    /// What is needed and only the user can install.
    pub by_hand: Vec<Missing>,
}

/// Something xtask cannot install on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A Rust that compiles for BPF.
    Toolchain,
    /// bpf-linker, or one new enough for this LLVM.
    Linker,
    /// A program of the lab.
    Program(&'static Program),
}

impl Plan {
    /// Decides.
    pub fn new(goal: Goal, machine: &Machine, archive: &Archive) -> Self {
        let mut planner = Planner {
            goal,
            machine,
            archive,
            plan: Self::default(),
            packages: Vec::new(),
        };
        let (rust, llvm) = planner.toolchain();
        planner.linker(llvm);
        planner.finish_packages();
        planner.programs();
        planner.checks(rust);
        planner.bpffs();
        planner.drop_what_nobody_may_do();
        planner.plan
    }

    /// Whether nothing has to be done, nor said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// All steps, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.required.iter().chain(&self.wished)
    }
}

struct Planner<'a> {
    goal: Goal,
    machine: &'a Machine,
    archive: &'a Archive,
    plan: Plan,
    packages: Vec<&'static str>,
}

impl Planner<'_> {
    /// The packages Rust comes or came from, if any, and the LLVM the linker must know.
    fn toolchain(&mut self) -> (Option<&'static RustPackages>, u32) {
        let Self {
            machine, archive, ..
        } = *self;
        if let Some(toolchain) = &machine.toolchain {
            return (archive.rust_of_release(&toolchain.release), toolchain.llvm);
        }
        if let Some(system) = machine.system_toolchain.as_ref().filter(|_| machine.rustup) {
            self.plan.required.push(Step::LinkToolchain);
            return (None, system.llvm);
        }
        // Debian's Rust and Debian's rustup exclude each other: whoever installed rustup wants it.
        if let Some(rust) = archive
            .rust()
            .filter(|_| machine.apt && !machine.packaged_rustup)
        {
            self.packages.extend([rust.rustc, rust.cargo, rust.bpf_std]);
            if machine.rustup {
                self.plan.required.push(Step::LinkToolchain);
            }
            return (Some(rust), archive.llvm_of(rust).unwrap_or(NIGHTLY_LLVM));
        }
        if machine.rustup && self.linker_packages(NIGHTLY_LLVM).is_some() {
            self.plan.required.push(Step::RustupNightly);
        } else {
            self.plan.by_hand.push(Missing::Toolchain);
        }
        (None, NIGHTLY_LLVM)
    }

    fn linker(&mut self, llvm: u32) {
        if self
            .machine
            .linker
            .as_ref()
            .is_some_and(|linker| linker.reads(llvm))
        {
            return;
        }
        match self.linker_packages(llvm) {
            Some((own, packages)) => {
                self.packages.extend(packages);
                self.plan.required.push(Step::Linker(own));
            }
            None => self.plan.by_hand.push(Missing::Linker),
        }
    }

    /// The LLVM to build bpf-linker for so that it reads the given one, and what that takes.
    fn linker_packages(&self, llvm: u32) -> Option<(u32, Vec<&'static str>)> {
        // The nearest: what the toolchain itself is made of is there already, mostly.
        let own = LINKER_LLVMS
            .into_iter()
            .rev()
            .find(|&own| own >= llvm && self.archive.has(llvm_packages(own)[0]))
            .filter(|_| self.machine.apt)?;
        let packages = llvm_packages(own).into_iter().chain([
            "g++",
            "libxml2-dev",
            "libzstd-dev",
            "zlib1g-dev",
        ]);
        Some((
            own,
            packages
                .filter(|package| self.archive.has(package))
                .collect(),
        ))
    }

    /// What was gathered so far goes first: the other steps need it.
    fn finish_packages(&mut self) {
        self.packages
            .retain(|package| !self.archive.is_installed(package));
        if !self.packages.is_empty() {
            self.plan
                .required
                .insert(0, Step::Apt(std::mem::take(&mut self.packages)));
        }
    }

    fn programs(&mut self) {
        let mut packages = Vec::new();
        for program in &self.machine.missing {
            match program
                .apt
                .iter()
                .find(|package| self.archive.has(package))
                .filter(|_| self.machine.apt)
            {
                Some(package) if packages.contains(package) => {}
                Some(package) => packages.push(package),
                None if program.optional => {
                    self.plan.notes.push(format!(
                        "{} is not to be had here ({})",
                        program.name, program.purpose
                    ));
                }
                None if self.goal == Goal::Test => self.plan.notes.push(format!(
                    "{} is not to be had here ({}); tests that need it are skipped",
                    program.name, program.purpose
                )),
                None => self.plan.by_hand.push(Missing::Program(program)),
            }
        }
        if !packages.is_empty() {
            self.steps().push(Step::Apt(packages));
        }
    }

    fn checks(&mut self, rust: Option<&'static RustPackages>) {
        let mut components = Vec::new();
        let mut packages = Vec::new();
        for check in &self.machine.missing_checks {
            if *check == DENY {
                self.plan.wished.push(Step::Deny);
                continue;
            }
            let is_fmt = *check == "fmt";
            let package = rust.map(|rust| (rust, if is_fmt { rust.rustfmt } else { rust.clippy }));
            match package {
                _ if self.machine.rustup => {
                    components.push(if is_fmt { "rustfmt" } else { "clippy" })
                }
                Some((rust, package)) if self.archive.same_release(package, rust.rustc) => {
                    packages.push(package)
                }
                _ => self.plan.notes.push(format!(
                    "cargo {check} is not to be had here; its check is skipped"
                )),
            }
        }
        if !components.is_empty() {
            self.plan.wished.push(Step::RustupComponents(components));
        }
        if !packages.is_empty() {
            self.plan.wished.push(Step::Apt(packages));
        }
    }

    fn bpffs(&mut self) {
        if self.goal != Goal::Build && !self.machine.bpffs {
            self.steps().push(Step::Bpffs);
        }
    }

    /// Where what running portway and the lab needs belongs: tests can be skipped.
    fn steps(&mut self) -> &mut Vec<Step> {
        if self.goal == Goal::Test {
            &mut self.plan.wished
        } else {
            &mut self.plan.required
        }
    }

    fn drop_what_nobody_may_do(&mut self) {
        if self.machine.can_be_root() {
            return;
        }
        let Plan { wished, notes, .. } = &mut self.plan;
        wished.retain(|step| {
            if step.needs_root() {
                let step = step.to_string();
                let what = step.lines().next().unwrap_or_default();
                notes.push(format!(
                    "only root can {what}; tests that need it are skipped"
                ));
            }
            !step.needs_root()
        });
    }
}

/// The packages with LLVM's library and what it is linked with, the deciding one first.
fn llvm_packages(llvm: u32) -> [&'static str; 2] {
    match llvm {
        21 => ["llvm-21-dev", "libpolly-21-dev"],
        22 => ["llvm-22-dev", "libpolly-22-dev"],
        _ => ["llvm-23-dev", "libpolly-23-dev"],
    }
}

/// Every package a plan may ask for, beside Rust's own.
pub fn package_names(machine: &Machine) -> Vec<&'static str> {
    LINKER_LLVMS
        .into_iter()
        .flat_map(llvm_packages)
        .chain(["g++", "libxml2-dev", "libzstd-dev", "zlib1g-dev"])
        .chain(
            machine
                .missing
                .iter()
                .flat_map(|program| program.apt.iter().copied()),
        )
        .collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
