//! What the build scripts of packages with eBPF programs inside do (shared by `#[path]`): compile the
//! programs with the toolchain that xtask would take, and leave them in `OUT_DIR`.

#[path = "src/toolchain.rs"]
mod toolchain;

use std::{env, ffi::OsString, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};
use toolchain::{Linker, TOOLCHAIN_VARIABLE, Toolchain};

/// The crates that use unstable features on the BPF target (`asm_experimental_arch`), which
/// a stable compiler allows by name only. Not `1`, for all: aya-build would take that for a wish to
/// build `core` too, from sources that Debian's toolchain does not have.
const UNSTABLE_CRATES: &str = "aya_ebpf,portway_ebpf";

/// A build script's `main`: compiles the binaries of `package`, whose directory is `programs`, and again
/// when something in `shared` has changed. All paths are relative to the package that is being built.
pub fn main(package: &str, programs: &str, shared: &[&str]) -> ExitCode {
    match build(package, programs, shared) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn build(package: &str, programs: &str, shared: &[&str]) -> Result<()> {
    println!("cargo:rerun-if-env-changed={TOOLCHAIN_VARIABLE}");
    // aya-build watches the programs' own crate; the code they share with others is ours to watch.
    for path in shared.iter().chain(&["build.rs"]) {
        println!("cargo:rerun-if-changed={path}");
    }

    const SET_UP: &str =
        "cannot compile the eBPF programs: run `cargo xtask build`, which sets up what is missing";
    let toolchain = Toolchain::find()
        .and_then(|found| found.context("no Rust toolchain here has `core` for the BPF target"))
        .context(SET_UP)?;
    let linker = toolchain::fitting_linker(&toolchain).context(SET_UP)?;
    println!("cargo:rerun-if-changed={}", linker.path.display());
    prepare_environment(&toolchain, &linker)?;

    let own = env::var("CARGO_MANIFEST_DIR").context("cargo does not say where the package is")?;
    aya_build::build_ebpf(
        [aya_build::Package {
            name: package,
            root_dir: &format!("{own}/{programs}"),
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
