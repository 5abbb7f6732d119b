//! The exact commands for what xtask does not install by itself.

use crate::{
    machine::Machine,
    packages::{Manager, Program},
    plan::Missing,
};

/// The commands, one a line, that make the missing things be there.
pub fn commands(machine: &Machine, missing: &[Missing]) -> Vec<String> {
    let manager = manager(machine);
    let mut commands = Vec::new();
    if missing.contains(&Missing::Toolchain) {
        if !machine.rustup {
            commands.extend(rustup(machine, manager));
        }
        commands.push("rustup toolchain install nightly --component rust-src".to_owned());
    }
    if missing.contains(&Missing::Linker) {
        // Its makers advise against building it: that needs the very LLVM of rustc, with headers.
        commands.push("cargo install cargo-binstall && cargo binstall bpf-linker".to_owned());
    }
    let programs: Vec<_> = missing
        .iter()
        .filter_map(|missing| match missing {
            Missing::Program(program) => Some(*program),
            Missing::Toolchain | Missing::Linker => None,
        })
        .collect();
    if !programs.is_empty() {
        commands.push(install(machine, manager, &programs));
    }
    commands
}

fn manager(machine: &Machine) -> Option<Manager> {
    [
        ("fedora", Manager::Dnf),
        ("rhel", Manager::Dnf),
        ("arch", Manager::Pacman),
        ("suse", Manager::Zypper),
        ("opensuse", Manager::Zypper),
        ("alpine", Manager::Apk),
    ]
    .into_iter()
    .find_map(|(id, manager)| machine.os.is_like(id).then_some(manager))
}

fn rustup(machine: &Machine, manager: Option<Manager>) -> Vec<String> {
    let sudo = sudo(machine);
    let install = match manager {
        Some(Manager::Dnf) => "dnf install rustup",
        Some(Manager::Pacman) => "pacman -S rustup",
        Some(Manager::Zypper) => "zypper install rustup",
        Some(Manager::Apk) => "apk add rustup",
        None if machine.apt => "apt-get install rustup",
        None => return vec!["# install rustup, the way your distribution documents it".to_owned()],
    };
    // Two ways to package it: the installer, or rustup itself, which then has no toolchain yet.
    let then: &[&str] = match manager {
        Some(Manager::Dnf | Manager::Apk) => &["rustup-init", ". \"$HOME/.cargo/env\""],
        _ => &["rustup default stable"],
    };
    std::iter::once(format!("{sudo}{install}"))
        .chain(then.iter().map(|&line| line.to_owned()))
        .collect()
}

fn install(machine: &Machine, manager: Option<Manager>, programs: &[&Program]) -> String {
    let (command, package): (_, fn(&Program, Manager) -> &'static str) = match manager {
        Some(Manager::Dnf) => ("dnf install", Program::package),
        Some(Manager::Pacman) => ("pacman -S", Program::package),
        Some(Manager::Zypper) => ("zypper install", Program::package),
        Some(Manager::Apk) => ("apk add", Program::package),
        None => ("", |program, _| program.name),
    };
    let mut packages: Vec<_> = programs
        .iter()
        .map(|program| package(program, manager.unwrap_or(Manager::Dnf)))
        .collect();
    packages.sort_unstable();
    packages.dedup();
    let packages = packages.join(" ");
    match manager {
        Some(_) => format!("{}{command} {packages}", sudo(machine)),
        None => format!("# install the packages with these programs: {packages}"),
    }
}

fn sudo(machine: &Machine) -> &'static str {
    if machine.root { "" } else { "sudo " }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{machine::Os, packages::PROGRAMS};

    fn on(id: &str, rustup: bool) -> Machine {
        let os = Os {
            family: vec![id.to_owned()],
            name: id.to_owned(),
        };
        Machine {
            os,
            rustup,
            ..Machine::default()
        }
    }

    #[test]
    fn fedora_gets_dnf_lines() {
        let mut missing = vec![Missing::Toolchain, Missing::Linker];
        missing.extend(
            PROGRAMS
                .iter()
                .filter(|p| ["dockerd", "ip", "tc"].contains(&p.name))
                .map(Missing::Program),
        );
        assert_eq!(
            commands(&on("fedora", false), &missing),
            [
                "sudo dnf install rustup",
                "rustup-init",
                ". \"$HOME/.cargo/env\"",
                "rustup toolchain install nightly --component rust-src",
                "cargo install cargo-binstall && cargo binstall bpf-linker",
                "sudo dnf install iproute iproute-tc moby-engine",
            ]
        );
    }

    #[test]
    fn a_packaged_rustup_is_given_a_toolchain_to_start_cargo_with() {
        let ubuntu = Machine {
            apt: true,
            ..on("ubuntu", false)
        };
        for (machine, install) in [
            (on("arch", false), "sudo pacman -S rustup"),
            (ubuntu, "sudo apt-get install rustup"),
        ] {
            assert_eq!(
                commands(&machine, &[Missing::Toolchain]),
                [
                    install,
                    "rustup default stable",
                    "rustup toolchain install nightly --component rust-src",
                ]
            );
        }
    }

    #[test]
    fn docker_and_its_client_are_one_package_on_arch() {
        let missing: Vec<_> = PROGRAMS
            .iter()
            .filter(|p| ["dockerd", "docker"].contains(&p.name))
            .map(Missing::Program)
            .collect();
        assert_eq!(
            commands(&on("arch", true), &missing),
            ["sudo pacman -S docker"]
        );
    }

    #[test]
    fn an_unknown_system_is_told_the_programs() {
        let missing: Vec<_> = PROGRAMS
            .iter()
            .filter(|p| p.name == "nft")
            .map(Missing::Program)
            .collect();
        assert_eq!(
            commands(&on("plan9", true), &missing),
            ["# install the packages with these programs: nft"]
        );
    }
}
