//! Compiles the bench's eBPF programs and leaves them in `OUT_DIR/portway-bench-ebpf`.

#[path = "../../xtask/build_ebpf.rs"]
mod build_ebpf;

use std::process::ExitCode;

fn main() -> ExitCode {
    build_ebpf::main(
        "portway-bench-ebpf",
        "ebpf",
        &[
            "../../xtask/build_ebpf.rs",
            "../../xtask/src/toolchain.rs",
            "../../dataplane-common/src/headers.rs",
        ],
    )
}
