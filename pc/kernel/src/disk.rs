//! The disks: virtio block devices on the PCI bus, which the host gave names.
//!
//! One request is under way at a time. Who waits for it lets other tasks run; the device is polled,
//! so that no interrupt has to be routed.

use crate::direct::content;
use crate::failures::Counts;
use crate::layout::{DIRECT_MAP, KERNEL_BASE, image};
use crate::sleep::SleepMutex;
use crate::{kernel, scheduler, vmalloc};
use alloc::vec::Vec;
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
    channel: SleepMutex<Channel>,
    name: [u8; 20],
    pages: u32,
}

/// The way to a device, for one request at a time.
struct Channel {
    device: Device,
    shared: &'static mut Shared,
}

/// What the device reads and writes. It knows physical addresses, and of the kernel's memory only the
/// direct map is where those say: neither a stack nor the heap.
struct Shared {
    page: PageBytes,
    request: BlkReq,
    response: BlkResp,
}

impl Shared {
    fn new() -> Option<&'static mut Self> {
        let order = size_of::<Self>().div_ceil(PAGE_SIZE as usize).next_power_of_two().ilog2();
        let frame = kernel().frames.allocate(order as usize).ok()?;
        let at = content(frame).cast::<Self>();
        // SAFETY: the frames were just allocated, lie one after the other in the direct map and are
        // not given back.
        unsafe {
            at.write(Self {
                page: [0; PAGE_SIZE as usize],
                request: BlkReq::default(),
                response: BlkResp::default(),
            });
            Some(&mut *at)
        }
    }
}

/// The disks of the machine.
pub struct Disks {
    /// The swap device.
    pub swap: Option<SwapDisk>,
    /// The one for files.
    pub files: Option<Disk>,
}

impl Disks {
    /// Starts the disks and tells them apart by the names that the host gave them.
    pub fn find() -> Self {
        let mut disks = Disk::all();
        let mut take = |name| {
            let at = disks.iter().position(|disk| disk.is_called(name))?;
            Some(disks.swap_remove(at))
        };
        let swap = take("swap").map(|disk| SwapDisk { disk, failures: Counts::new() });
        Self { swap, files: take("files") }
    }
}

impl Disk {
    /// The block devices on the first bus.
    fn all() -> Vec<Self> {
        let mut root = PciRoot::new(Ports);
        let functions: Vec<DeviceFunction> = root
            .enumerate_bus(0)
            .filter(|(_, info)| virtio_device_type(info) == Some(DeviceType::Block))
            .map(|(function, _)| function)
            .collect();
        functions.into_iter().filter_map(|function| Self::start(&mut root, function)).collect()
    }

    fn start(root: &mut PciRoot<Ports>, function: DeviceFunction) -> Option<Self> {
        let command = Command::IO_SPACE | Command::MEMORY_SPACE | Command::BUS_MASTER;
        root.set_command(function, command);
        let transport = PciTransport::new::<Memory, _>(root, function).ok()?;
        let mut device = VirtIOBlk::new(transport).ok()?;
        let mut name = [0; 20];
        device.device_id(&mut name).ok()?;
        let pages = (device.capacity() / SECTORS_A_PAGE as u64).try_into().ok()?;
        let channel = SleepMutex::new(Channel { device, shared: Shared::new()? });
        Some(Self { channel, name, pages })
    }

    /// Whether the host called it so (virtio: the serial number).
    fn is_called(&self, name: &str) -> bool {
        self.name
            .strip_prefix(name.as_bytes())
            .is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
    }

    /// How many pages it has.
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// Reads page number `at`.
    pub fn read_page(&self, at: u32, page: &mut PageBytes) -> Result<(), IoError> {
        let mut channel = self.channel.lock();
        let Channel { device, shared } = &mut *channel;
        let Shared { page: bounced, request, response } = &mut **shared;
        let sector = at as usize * SECTORS_A_PAGE;
        // SAFETY: the three are the channel's, and are not touched before the request is complete.
        let token = unsafe { device.read_blocks_nb(sector, request, bounced, response) }
            .map_err(|_| IoError::Device)?;
        await_answer(device, token);
        // SAFETY: they are those of the request that the token is of.
        unsafe { device.complete_read_blocks(token, request, bounced, response) }
            .map_err(|_| IoError::Device)?;
        page.copy_from_slice(bounced);
        Ok(())
    }

    /// Writes page number `at`.
    pub fn write_page(&self, at: u32, page: &PageBytes) -> Result<(), IoError> {
        let mut channel = self.channel.lock();
        let Channel { device, shared } = &mut *channel;
        let Shared { page: bounced, request, response } = &mut **shared;
        bounced.copy_from_slice(page);
        let sector = at as usize * SECTORS_A_PAGE;
        // SAFETY: the three are the channel's, and are not touched before the request is complete.
        let token = unsafe { device.write_blocks_nb(sector, request, bounced, response) }
            .map_err(|_| IoError::Device)?;
        await_answer(device, token);
        // SAFETY: they are those of the request that the token is of.
        unsafe { device.complete_write_blocks(token, request, bounced, response) }
            .map_err(|_| IoError::Device)
    }
}

/// A disk as a swap area.
pub struct SwapDisk {
    disk: Disk,
    failures: Counts,
}

impl SwapDevice for SwapDisk {
    fn slots(&self) -> u32 {
        self.disk.pages()
    }

    fn read(&self, slot: u32, page: &mut PageBytes) -> Result<(), IoError> {
        self.failures.read()?;
        self.disk.read_page(slot, page)
    }

    fn write(&self, slot: u32, page: &PageBytes) -> Result<(), IoError> {
        self.failures.write()?;
        self.disk.write_page(slot, page)
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
        // The heap and the stacks are not contiguous, and nothing of them is given to a device.
        let physical = at.wrapping_sub(DIRECT_MAP);
        assert!(physical >> 12 < u64::from(kernel().frames.count()), "{at:#x} cannot be shared");
        physical
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
