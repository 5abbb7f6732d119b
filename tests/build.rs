//! Compiles the eBPF program that watches what the kernel drops and leaves it in `OUT_DIR/portway-tests-ebpf`.

#[path = "../xtask/build_ebpf.rs"]
mod build_ebpf;

use std::process::ExitCode;

fn main() -> ExitCode {
    build_ebpf::main(
        "portway-tests-ebpf",
        "ebpf",
        &["../xtask/build_ebpf.rs", "../xtask/src/toolchain.rs"],
    )
}
