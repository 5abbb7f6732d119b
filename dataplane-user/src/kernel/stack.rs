//! The programs' stack, as verifiers before Linux 6.8 measure it (`check_max_stack_depth` in kernel/bpf/verifier.c): each
//! function of a chain of calls takes its own in steps of 32 bytes, and at least one such step. Later ones count
//! less, and would not tell.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use aya_obj::{
    Object,
    generated::{
        BPF_ADD, BPF_ALU64, BPF_CALL, BPF_JMP, BPF_K, BPF_LDX, BPF_MOV, BPF_PSEUDO_CALL, BPF_ST,
        BPF_STX, BPF_X, bpf_insn,
    },
};

use dataplane_common::layout::programs;

use crate::dataplane::OBJECT;

/// What a chain of calls has (`MAX_BPF_STACK`, include/linux/filter.h).
const LIMIT: u32 = 512;

/// What each function's share is rounded up to.
const STEP: u32 = 32;

/// The register that points to the end of a function's stack.
const FRAME: u8 = 10;

/// A function: how many bytes of stack it takes, and the functions that it calls, by their first instruction.
#[derive(Default)]
struct Function {
    bytes: u32,
    calls: BTreeSet<usize>,
}

#[test]
fn all_chains_of_calls_fit() {
    let mut object = Object::parse(OBJECT).expect("the programs");
    let sections: HashSet<_> = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    object
        .relocate_calls(&sections)
        .expect("programs with what they call");
    assert!(!object.programs.is_empty());
    for (name, program) in &object.programs {
        let instructions = &object.functions[&program.function_key()].instructions;
        let functions = functions(instructions);
        let calls = functions.len() > 1;
        assert_eq!(calls, name != programs::PASS, "{name} calls functions");
        let depth = depth(&functions, 0);
        assert!(depth <= LIMIT, "{name} takes {depth} bytes of stack");
    }
}

/// The functions of a program, by their first instruction.
fn functions(instructions: &[bpf_insn]) -> BTreeMap<usize, Function> {
    let mut starts = BTreeSet::from([0]);
    starts.extend((0..instructions.len()).filter_map(|index| callee(instructions, index)));
    let starts: Vec<_> = starts.into_iter().collect();
    let ends = starts[1..].iter().copied().chain([instructions.len()]);
    let ranges = starts.iter().copied().zip(ends);
    ranges
        .map(|(start, end)| {
            let function = Function {
                bytes: (start..end)
                    .map(|index| reach(instructions, index))
                    .max()
                    .unwrap_or(0),
                calls: (start..end)
                    .filter_map(|index| callee(instructions, index))
                    .collect(),
            };
            (start, function)
        })
        .collect()
}

/// Where an instruction calls a function of the program.
fn callee(instructions: &[bpf_insn], index: usize) -> Option<usize> {
    let instruction = &instructions[index];
    let is_call = u32::from(instruction.code) == BPF_JMP | BPF_CALL
        && u32::from(instruction.src_reg()) == BPF_PSEUDO_CALL;
    is_call.then(|| (index as i64 + 1 + i64::from(instruction.imm)) as usize)
}

/// How far down the stack an instruction reaches, or makes a pointer reach.
fn reach(instructions: &[bpf_insn], index: usize) -> u32 {
    const CLASS: u8 = 0x07;
    let instruction = &instructions[index];
    let base = match u32::from(instruction.code & CLASS) {
        BPF_LDX => instruction.src_reg(),
        BPF_ST | BPF_STX => instruction.dst_reg(),
        _ if is_address(instructions, index) => {
            return instruction.imm.min(0).unsigned_abs();
        }
        _ => return 0,
    };
    if base == FRAME {
        i32::from(instruction.off).min(0).unsigned_abs()
    } else {
        0
    }
}

/// Whether an instruction is the second of two that make a pointer into the stack.
fn is_address(instructions: &[bpf_insn], index: usize) -> bool {
    let (Some(before), this) = (
        index.checked_sub(1).map(|index| &instructions[index]),
        &instructions[index],
    ) else {
        return false;
    };
    u32::from(before.code) == BPF_ALU64 | BPF_MOV | BPF_X
        && before.src_reg() == FRAME
        && u32::from(this.code) == BPF_ALU64 | BPF_ADD | BPF_K
        && this.dst_reg() == before.dst_reg()
}

/// The stack of the deepest chain of calls from a function on. There is no recursion in eBPF.
fn depth(functions: &BTreeMap<usize, Function>, start: usize) -> u32 {
    let function = &functions[&start];
    let below = function.calls.iter().map(|call| depth(functions, *call));
    function.bytes.max(1).next_multiple_of(STEP) + below.max().unwrap_or(0)
}
