//! Mistakes of processors, and how they are known (spec A24).

use crate::common::{PAGE, RW, map};
use pagefault_machine::{Erratum, Machine, Mode, PageFault, Protection, VirtAddr};
use pagefault_sim::{
    Alpha, Architecture, Computer, Config, Ia32, Pae, Registers, SimSpace, X86_64,
};

/// Where nothing is mapped.
const NOTHING: VirtAddr = VirtAddr(0x7000_0000);

/// A computer with this code at [`PAGE`].
fn with_code<A: Architecture>(code: &[u8]) -> (Computer<A>, SimSpace<A>) {
    let sim = Computer::<A>::new(Config::calm());
    let space = sim.space().unwrap();
    let frame = map(&sim, &space, PAGE, Protection::READ | Protection::EXECUTE);
    sim.fill(frame, |page| page[..code.len()].copy_from_slice(code));
    (sim, space)
}

/// The result of a prefetch of an absent page by this code.
fn prefetched<A: Architecture>(code: &[u8]) -> Option<Option<Erratum>> {
    let (sim, space) = with_code::<A>(code);
    let cpu = sim.cpu(0).with(Registers { ip: PAGE, ..Registers::default() });
    let fault = cpu.prefetch(&space, NOTHING, Mode::User).err()?;
    assert_eq!((fault.address, fault.ip), (NOTHING, PAGE));
    // Every other time.
    assert_eq!(cpu.prefetch(&space, NOTHING, Mode::User), Ok(()));
    Some(sim.erratum(&fault))
}

#[test]
fn a24_a_prefetch_that_faults_is_known_by_its_bytes() {
    const PREFETCH: &[u8] = &[0x0f, 0x18, 0x08];
    assert_eq!(prefetched::<X86_64>(PREFETCH), Some(Some(Erratum::Stray)));
    assert_eq!(prefetched::<Ia32>(PREFETCH), Some(Some(Erratum::Stray)));
    assert_eq!(prefetched::<Pae>(&[0x0f, 0x0d, 0x08]), Some(Some(Erratum::Stray)));
    // Behind prefixes; those of 64-bit code are instructions elsewhere.
    let prefixed = &[0x66, 0x41, 0x0f, 0x0d, 0x09];
    assert_eq!(prefetched::<X86_64>(prefixed), Some(Some(Erratum::Stray)));
    assert_eq!(prefetched::<Ia32>(prefixed), Some(None));
    // A load; what never ends; another instruction with the same first byte.
    for code in [&[0x8a, 0x00][..], &[0x66; 64], &[0x0f, 0x0b]] {
        assert_eq!(prefetched::<X86_64>(code), Some(None), "{code:x?}");
    }
    // Alpha's processors do not make this mistake.
    assert_eq!(prefetched::<Alpha>(PREFETCH), None);
}

#[test]
fn a24_processors_without_errata_have_none() {
    let sim = Computer::<X86_64>::new(Config { errata: false, ..Config::calm() });
    let space = sim.space().unwrap();
    let cpu = sim.cpu(0);
    assert_eq!(cpu.prefetch(&space, NOTHING, Mode::User), Ok(()));
    assert_eq!(cpu.locked_compare(), None);
}

#[test]
fn a24_an_illegal_instruction_that_faults_at_the_table_of_exceptions() {
    let (sim, _) = with_code::<Ia32>(&[0xf0, 0x0f, 0xc7, 0xc8]);
    let fault = sim.cpu(0).locked_compare().unwrap();
    assert_eq!(sim.erratum(&fault), Some(Erratum::IllegalInstruction));
    let other = PageFault { address: fault.address + 8, ..fault };
    assert_eq!(sim.erratum(&other), None);
    assert_eq!(Computer::<X86_64>::new(Config::calm()).cpu(0).locked_compare(), None);
}

#[test]
fn a24_half_an_address_is_made_whole_where_the_kernel_has_code() {
    let sim = Computer::<X86_64>::new(Config::calm());
    let whole = VirtAddr(0xffff_ffff_8000_1000);
    map(&sim, sim.kernel(), whole, RW | Protection::EXECUTE);
    let space = sim.space().unwrap();
    let fetch = |ip: VirtAddr, mode| {
        let cpu = sim.cpu(0).with(Registers { ip, ..Registers::default() });
        let fault = cpu.fetch(&space, ip, mode).unwrap_err();
        sim.erratum(&fault)
    };
    assert_eq!(fetch(VirtAddr(0x8000_1010), Mode::Kernel), Some(Erratum::LostHalf(whole + 0x10)));
    // Where no code is, and in a program.
    assert_eq!(fetch(VirtAddr(0x8000_2010), Mode::Kernel), None);
    assert_eq!(fetch(VirtAddr(0x8000_1010), Mode::User), None);
}
