//! The swap device: a virtio block device on the PCI bus.
//!
//! One request is under way at a time. Who waits for it lets other tasks run; the device is polled,
//! so that no interrupt has to be routed.

use crate::direct::content;
use crate::layout::{DIRECT_MAP, KERNEL_BASE, image};
use crate::sleep::SleepMutex;
use crate::{kernel, scheduler, vmalloc};
use alloc::boxed::Box;
use core::ptr::NonNull;
use pagefault::machine::store::PageBytes;
use pagefault::machine::{Frame, IoError, PAGE_SIZE, SwapDevice};
use virtio_drivers::device::blk::{BlkReq, BlkResp, SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::pci::bus::{Command, ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};
use virtio_drivers::{BufferDirection, Hal, PhysAddr};
use x86_64::instructions::port::Port;

const SECTORS_A_PAGE: usize = PAGE_SIZE as usize / SECTOR_SIZE;

type Device = VirtIOBlk<Memory, PciTransport>;

/// A block device, cut into pages.
pub struct Disk {
    device: SleepMutex<Device>,
    pages: u32,
}

/// The first block device on the first bus.
pub fn find() -> Option<Box<dyn SwapDevice>> {
    let mut root = PciRoot::new(Ports);
    let (function, _) = root
        .enumerate_bus(0)
        .find(|(_, info)| virtio_device_type(info) == Some(DeviceType::Block))?;
    let command = Command::IO_SPACE | Command::MEMORY_SPACE | Command::BUS_MASTER;
    root.set_command(function, command);
    let transport = PciTransport::new::<Memory, _>(&mut root, function).ok()?;
    let device = VirtIOBlk::new(transport).ok()?;
    let pages = (device.capacity() / SECTORS_A_PAGE as u64).try_into().ok()?;
    Some(Box::new(Disk { device: SleepMutex::new(device), pages }))
}

impl SwapDevice for Disk {
    fn slots(&self) -> u32 {
        self.pages
    }

    fn read(&self, slot: u32, page: &mut PageBytes) -> Result<(), IoError> {
        let (mut request, mut response) = (BlkReq::default(), BlkResp::default());
        let sector = slot as usize * SECTORS_A_PAGE;
        let mut device = self.device.lock();
        // SAFETY: the three live until the request is complete, and are not touched before.
        let token = unsafe { device.read_blocks_nb(sector, &mut request, page, &mut response) }
            .map_err(|_| IoError::Device)?;
        await_answer(&mut device, token);
        // SAFETY: they are those of the request that the token is of.
        unsafe { device.complete_read_blocks(token, &request, page, &mut response) }
            .map_err(|_| IoError::Device)
    }

    fn write(&self, slot: u32, page: &PageBytes) -> Result<(), IoError> {
        let (mut request, mut response) = (BlkReq::default(), BlkResp::default());
        let sector = slot as usize * SECTORS_A_PAGE;
        let mut device = self.device.lock();
        // SAFETY: the three live until the request is complete, and are not touched before.
        let token = unsafe { device.write_blocks_nb(sector, &mut request, page, &mut response) }
            .map_err(|_| IoError::Device)?;
        await_answer(&mut device, token);
        // SAFETY: they are those of the request that the token is of.
        unsafe { device.complete_write_blocks(token, &request, page, &mut response) }
            .map_err(|_| IoError::Device)
    }
}

/// Lets other tasks run until a request is answered.
fn await_answer(device: &mut Device, token: u16) {
    while device.peek_used() != Some(token) {
        scheduler::yield_now();
    }
}

/// The PCI configuration registers, through their two ports.
struct Ports;

impl Ports {
    fn select(function: DeviceFunction, register: u8) {
        let DeviceFunction { bus, device, function } = function;
        let address = 1 << 31
            | u32::from(bus) << 16
            | u32::from(device) << 11
            | u32::from(function) << 8
            | u32::from(register & 0xfc);
        // SAFETY: the port selects a configuration register, and the driver alone uses it.
        unsafe { Port::new(0xcf8).write(address) };
    }
}

impl ConfigurationAccess for Ports {
    fn read_word(&self, function: DeviceFunction, register: u8) -> u32 {
        Self::select(function, register);
        // SAFETY: reads the register just selected.
        unsafe { Port::new(0xcfc).read() }
    }

    fn write_word(&mut self, function: DeviceFunction, register: u8, data: u32) {
        Self::select(function, register);
        // SAFETY: writes the register just selected; the driver sets addresses that the firmware
        // assigned and rights of the device that it drives.
        unsafe { Port::new(0xcfc).write(data) };
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}

/// What the driver asks of the kernel's memory.
struct Memory;

// SAFETY: the pages come from the frame allocator, zeroed, and are the driver's until it gives them
// back; device registers are mapped where nothing else is.
unsafe impl Hal for Memory {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let order = pages.next_power_of_two().trailing_zeros() as usize;
        // Asked for once, at boot, when there is memory.
        let frame = kernel().frames.allocate(order).expect("memory for the queue of a device");
        // SAFETY: the frames were just allocated.
        unsafe { content(frame).write_bytes(0, 1 << order) };
        let pointer = NonNull::new(content(frame).cast()).expect("the direct map is not at 0");
        (u64::from(frame.0) << 12, pointer)
    }

    unsafe fn dma_dealloc(physical: PhysAddr, _: NonNull<u8>, pages: usize) -> i32 {
        let order = pages.next_power_of_two().trailing_zeros() as usize;
        kernel().frames.free(Frame((physical >> 12) as u32), order);
        0
    }

    unsafe fn mmio_phys_to_virt(physical: PhysAddr, bytes: usize) -> NonNull<u8> {
        let machine = kernel().manager.machine();
        let mapped =
            vmalloc::map_device(kernel().frames, machine.reference(), physical, bytes as u64);
        NonNull::new(mapped.expect("memory for page tables at boot")).expect("not at 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        let at = buffer.cast::<u8>().addr().get() as u64;
        let image = image();
        if (image.text.start..image.data.end).contains(&at) {
            return at - KERNEL_BASE;
        }
        // Stacks and frames; the heap is not contiguous, and nothing of it is given to a device.
        let physical = at.wrapping_sub(DIRECT_MAP);
        assert!(physical >> 12 < u64::from(kernel().frames.count()), "{at:#x} cannot be shared");
        physical
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
