//! The atomic operations that the programs need. `core` has none for this target.

/// Puts `value` into a word and returns what was there, in one step that no other CPU comes between. What is
/// written before it is seen before it, and what is read after it is read after it.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn swap(word: &mut u64, value: u64) -> u64 {
    let mut value = value;
    // SAFETY: an exchange with the word that the reference stands for (Linux 5.12; the kernel's
    // Documentation/bpf/standardization/instruction-set.rst, "Atomic operations").
    unsafe {
        core::arch::asm!(
            "{value} = xchg_64({word} + 0, {value})",
            word = in(reg) &raw mut *word,
            value = inout(reg) value,
        );
    }
    value
}

/// The same where the programs are checked and linted.
#[cfg(not(target_arch = "bpf"))]
pub fn swap(word: &mut u64, value: u64) -> u64 {
    core::mem::replace(word, value)
}

/// Has what is written before it seen before what is written after it. `word` is one that others add to.
#[inline(always)]
pub fn fence(word: &mut u64) {
    fetch_add(word, 0);
}

/// Adds `value` to a word and returns what was there, in one step that no other CPU comes between. What is written
/// before it is seen before what is written after it.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn fetch_add(word: &mut u64, value: u64) -> u64 {
    let mut value = value;
    // SAFETY: as above.
    unsafe {
        core::arch::asm!(
            "{value} = atomic_fetch_add((u64 *)({word} + 0), {value})",
            word = in(reg) &raw mut *word,
            value = inout(reg) value,
        );
    }
    value
}

/// The same where the programs are checked and linted.
#[cfg(not(target_arch = "bpf"))]
pub fn fetch_add(word: &mut u64, value: u64) -> u64 {
    core::mem::replace(word, word.wrapping_add(value))
}
