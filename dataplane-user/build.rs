//! Compiles the eBPF programs and leaves them in `OUT_DIR/portway-ebpf`, for the library to include.

#[path = "../xtask/build_ebpf.rs"]
mod build_ebpf;

use std::process::ExitCode;

fn main() -> ExitCode {
    build_ebpf::main(
        "dataplane-ebpf",
        "../dataplane-ebpf",
        &[
            "../xtask/build_ebpf.rs",
            "../xtask/src/toolchain.rs",
            "../dataplane-common/Cargo.toml",
            "../dataplane-common/src",
        ],
    )
}
