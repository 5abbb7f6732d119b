//! Machines as they are found, and what is decided for them.

use std::path::PathBuf;

use super::*;
use crate::{
    machine::Os,
    packages::PROGRAMS,
    toolchain::{Linker, Toolchain},
};

fn toolchain(name: Option<&str>, nightly: bool) -> Toolchain {
    Toolchain {
        name: name.map(str::to_owned),
        release: "1.96.0".to_owned(),
        llvm: 22,
        nightly,
    }
}

fn linker(llvm: u32) -> Linker {
    Linker {
        path: PathBuf::from("/home/u/.cargo/bin/bpf-linker"),
        llvm: Some(llvm),
    }
}

/// A fresh Debian with its own cargo, seen by root.
fn fresh() -> Machine {
    Machine {
        os: Os {
            family: vec!["debian".to_owned()],
            name: "Debian".to_owned(),
        },
        root: true,
        apt: true,
        ..Machine::default()
    }
}

/// The same after set-up.
fn ready() -> Machine {
    Machine {
        toolchain: Some(toolchain(None, false)),
        linker: Some(linker(22)),
        bpffs: true,
        ..fresh()
    }
}

fn debian() -> Archive {
    let web = [
        "rustc-web",
        "cargo-web",
        "libstd-rust-web-dev-bpf",
        "rustfmt-web",
    ]
    .map(|name| (name, "1.96.0"));
    let old = ["rustc", "cargo", "rust-clippy"].map(|name| (name, "1.85.1"));
    let other = [
        "llvm-22-dev",
        "libpolly-22-dev",
        "g++",
        "zlib1g-dev",
        "docker.io",
        "busybox-static",
        "iproute2",
    ]
    .map(|name| (name, "1"));
    let versions: Vec<_> = web.into_iter().chain(old).chain(other).collect();
    Archive::of(&versions, &[("libstd-rust-web-dev-bpf", 22)])
}

fn ubuntu() -> Archive {
    Archive::of(
        &[
            ("rustc", "1.75.0"),
            ("llvm-18-dev", "18"),
            ("docker.io", "26"),
            ("busybox-static", "1"),
        ],
        &[],
    )
}

#[test]
fn a_machine_that_is_ready_needs_nothing() {
    for goal in [Goal::Build, Goal::Run, Goal::Lab, Goal::Test] {
        let plan = Plan::new(goal, &ready(), &Archive::default());
        assert!(plan.is_empty(), "{goal:?}: {plan:?}");
    }
}

#[test]
fn a_fresh_debian_takes_its_own_rust() {
    let plan = Plan::new(Goal::Build, &fresh(), &debian());
    assert_eq!(
        plan.required,
        [
            Step::Apt(vec![
                "rustc-web",
                "cargo-web",
                "libstd-rust-web-dev-bpf",
                "llvm-22-dev",
                "libpolly-22-dev",
                "g++",
                "zlib1g-dev",
            ]),
            Step::Linker(22),
        ]
    );
    assert!(plan.by_hand.is_empty() && plan.wished.is_empty());
}

#[test]
fn rustup_is_told_of_debians_rust() {
    let machine = Machine {
        rustup: true,
        ..fresh()
    };
    let plan = Plan::new(Goal::Build, &machine, &debian());
    assert_eq!(plan.required[1..], [Step::LinkToolchain, Step::Linker(22)]);

    let installed = Machine {
        system_toolchain: Some(toolchain(None, false)),
        linker: Some(linker(22)),
        ..machine
    };
    let plan = Plan::new(Goal::Build, &installed, &Archive::default());
    assert_eq!(
        plan.required,
        [Step::LinkToolchain],
        "no archive is needed for that"
    );
}

#[test]
fn a_nightly_with_sources_is_taken_as_it_is() {
    let machine = Machine {
        rustup: true,
        toolchain: Some(toolchain(Some("nightly"), true)),
        linker: Some(linker(23)),
        ..fresh()
    };
    assert!(Plan::new(Goal::Build, &machine, &debian()).is_empty());
}

#[test]
fn debians_rustup_is_not_displaced() {
    let machine = Machine {
        rustup: true,
        packaged_rustup: true,
        ..fresh()
    };
    let plan = Plan::new(Goal::Build, &machine, &debian());
    assert!(matches!(&plan.required[0], Step::Apt(packages) if !packages.contains(&"rustc-web")));
    assert_eq!(plan.required[1..], [Step::RustupNightly, Step::Linker(22)]);
}

#[test]
fn a_linker_older_than_the_compilers_llvm_is_replaced() {
    let machine = Machine {
        linker: Some(linker(21)),
        ..ready()
    };
    assert_eq!(
        Plan::new(Goal::Build, &machine, &debian()).required.last(),
        Some(&Step::Linker(22))
    );
    let plan = Plan::new(Goal::Build, &machine, &ubuntu());
    assert_eq!(plan.by_hand, [Missing::Linker]);
}

#[test]
fn without_a_rust_for_bpf_it_is_the_users_turn() {
    for machine in [
        fresh(),
        Machine {
            rustup: true,
            ..fresh()
        },
        Machine {
            apt: false,
            ..fresh()
        },
    ] {
        let plan = Plan::new(Goal::Build, &machine, &ubuntu());
        assert_eq!(plan.by_hand, [Missing::Toolchain, Missing::Linker]);
    }
}

#[test]
fn the_lab_takes_the_first_package_there_is() {
    let missing: Vec<_> = PROGRAMS
        .iter()
        .filter(|program| program.name.starts_with("docker"))
        .collect();
    let machine = Machine { missing, ..ready() };
    let plan = Plan::new(Goal::Lab, &machine, &debian());
    assert_eq!(
        plan.required,
        [Step::Apt(vec!["docker.io"])],
        "docker and dockerd are one package here"
    );
    assert_eq!(
        plan.notes.len(),
        1,
        "compose is not in this archive, and not needed"
    );
}

#[test]
fn tests_do_without_what_is_not_to_be_had() {
    let missing = PROGRAMS
        .iter()
        .filter(|program| program.name == "nft")
        .collect();
    let machine = Machine {
        missing,
        missing_checks: vec!["fmt", "clippy", "deny"],
        bpffs: false,
        ..ready()
    };
    let plan = Plan::new(Goal::Test, &machine, &debian());
    assert!(plan.required.is_empty() && plan.by_hand.is_empty());
    assert_eq!(
        plan.wished,
        [Step::Deny, Step::Apt(vec!["rustfmt-web"]), Step::Bpffs]
    );
    assert_eq!(plan.notes.len(), 2, "nft and clippy: {:?}", plan.notes);

    let plan = Plan::new(Goal::Lab, &machine, &debian());
    assert!(matches!(
        plan.by_hand[..],
        [Missing::Program(Program { name: "nft", .. })]
    ));
}

#[test]
fn a_user_without_sudo_still_gets_the_tests_that_need_no_root() {
    let machine = Machine {
        root: false,
        bpffs: false,
        ..ready()
    };
    let plan = Plan::new(Goal::Test, &machine, &debian());
    assert!(plan.required.is_empty() && plan.wished.is_empty());
    assert_eq!(plan.notes.len(), 1);
    assert_eq!(
        Plan::new(Goal::Run, &machine, &debian()).required,
        [Step::Bpffs],
        "said, then refused by set-up"
    );
}
