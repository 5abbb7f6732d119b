//! Compiles the eBPF programs and leaves them in `OUT_DIR/portway-ebpf`, for the library to include.

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::{env, ffi::OsString, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};
use toolchain::{Linker, TOOLCHAIN_VARIABLE, Toolchain};

/// The crates that use unstable features on the BPF target (`asm_experimental_arch`), which
/// a stable compiler allows by name only. Not `1`, for all: aya-build would take that for a wish to
/// build `core` too, from sources that Debian's toolchain does not have.
const UNSTABLE_CRATES: &str = "aya_ebpf,portway_ebpf";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<()> {
    println!("cargo:rerun-if-env-changed={TOOLCHAIN_VARIABLE}");
    // aya-build watches the programs' own crate; the code they share with the controller is ours to watch.
    println!("cargo:rerun-if-changed=../dataplane-common/Cargo.toml");
    println!("cargo:rerun-if-changed=../dataplane-common/src");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../xtask/src/toolchain.rs");

    const SET_UP: &str =
        "cannot compile the eBPF programs: run `cargo xtask build`, which sets up what is missing";
    let toolchain = Toolchain::find()
        .and_then(|found| found.context("no Rust toolchain here has `core` for the BPF target"))
        .context(SET_UP)?;
    let linker = toolchain::fitting_linker(&toolchain).context(SET_UP)?;
    println!("cargo:rerun-if-changed={}", linker.path.display());
    prepare_environment(&toolchain, &linker)?;

    let programs = concat!(env!("CARGO_MANIFEST_DIR"), "/../dataplane-ebpf");
    aya_build::build_ebpf(
        [aya_build::Package {
            name: "dataplane-ebpf",
            root_dir: programs,
            ..Default::default()
        }],
        aya_build::Toolchain::Custom(toolchain.name.as_deref().unwrap_or_default()),
    )
    .context("the eBPF programs did not compile; cargo's own messages above say where")
}

/// aya-build starts cargo with this process's environment; what that cargo needs is put there.
fn prepare_environment(toolchain: &Toolchain, linker: &Linker) -> Result<()> {
    let mut set = vec![
        // What cargo writes to stderr, its progress too, would come back as this build's warnings.
        ("CARGO_TERM_QUIET", OsString::from("true")),
        ("PATH", path_with(linker.path.parent())?),
    ];
    if !toolchain.nightly {
        set.push(("RUSTC_BOOTSTRAP", UNSTABLE_CRATES.into()));
    }
    for (name, value) in set {
        // SAFETY: this process has no other thread yet.
        unsafe { env::set_var(name, value) };
    }
    Ok(())
}

/// PATH, and behind it the linker's directory: cargo's own need not be on it.
fn path_with(dir: Option<&Path>) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(env::split_paths(&path).chain(dir.map(Path::to_owned)))
        .context("PATH cannot be extended by the linker's directory")
}
