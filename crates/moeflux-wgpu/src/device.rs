//! Devices: which there are, what they can do, memory on them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::buffer::{Dropped, View};
use crate::encoder::{Encoder, Mark};
use crate::error::GpuError;
use crate::pipeline::{Pipelines, Program};

/// How long a device may take for one submission.
const PATIENCE: Duration = Duration::from_mins(2);

/// Bytes of small parameters that shaders need: Vulkan promises no more.
const IMMEDIATES: u32 = 128;

/// Storage buffers that a shader binds at most.
const BINDINGS: u32 = 8;

/// Buffers that are the host's and a shader's at once; not all APIs have them.
const READS_HOST: wgpu::Features = wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;

/// What a device is.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// `vulkan`, `metal` or `dx12`.
    pub api: String,
    /// The driver and its version.
    pub driver: String,
    /// Whether it is the processor itself.
    pub is_cpu: bool,
    /// Whether it shares the host's memory.
    pub is_integrated: bool,
    /// Its own memory in bytes (the host's, where it has none of its own), if the driver says.
    pub memory: Option<u64>,
    /// What of it the process may still take, in bytes, if the driver says.
    pub free: Option<u64>,
    /// The largest buffer a shader can bind, in bytes.
    pub binding_limit: u64,
    /// Whether shaders may read the host's memory ([`Device::alloc_on_host`]).
    pub reads_host: bool,
    /// The fewest and the most invocations of a subgroup.
    pub subgroup: (u32, u32),
}

/// All devices there are, in the order in which [`Device::open`] counts them: real ones first.
pub fn devices() -> Vec<DeviceInfo> {
    adapters().iter().map(DeviceInfo::of).collect()
}

impl DeviceInfo {
    fn of(adapter: &wgpu::Adapter) -> Self {
        let info = adapter.get_info();
        DeviceInfo {
            name: info.name,
            api: info.backend.to_str().to_owned(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            is_cpu: info.device_type == wgpu::DeviceType::Cpu,
            is_integrated: info.device_type == wgpu::DeviceType::IntegratedGpu,
            memory: memory(adapter),
            free: free(adapter),
            binding_limit: adapter.limits().max_storage_buffer_binding_size,
            reads_host: adapter.features().contains(READS_HOST),
            subgroup: (info.subgroup_min_size, info.subgroup_max_size),
        }
    }
}

/// The largest heap of the device's own memory.
#[cfg(not(target_vendor = "apple"))]
fn memory(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the adapter is only asked; what is asked lives as long as the guard.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let instance = adapter.shared_instance().raw_instance();
    // SAFETY: the device is one of this instance.
    let found = unsafe { instance.get_physical_device_memory_properties(adapter.raw_physical_device()) };
    // Bit 0 of the flags is DEVICE_LOCAL.
    found
        .memory_heaps_as_slice()
        .iter()
        .filter(|heap| heap.flags.as_raw() & 1 != 0)
        .map(|heap| heap.size)
        .max()
}

#[cfg(target_vendor = "apple")]
fn memory(_adapter: &wgpu::Adapter) -> Option<u64> {
    None
}

/// What the driver lets the process take of the heap that [`memory`] tells, less what it holds already.
#[cfg(not(target_vendor = "apple"))]
fn free(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the adapter is only asked; what is asked lives as long as the guard.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    if !adapter.physical_device_capabilities().supports_extension(ash::ext::memory_budget::NAME) {
        return None;
    }
    let instance = adapter.shared_instance().raw_instance();
    let mut budget = ash::vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut found = ash::vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
    // SAFETY: the device is one of this instance, and has the extension whose structure is asked for.
    unsafe {
        instance.get_physical_device_memory_properties2(adapter.raw_physical_device(), &mut found);
    }
    let heaps = found.memory_properties;
    let (largest, _) = heaps
        .memory_heaps_as_slice()
        .iter()
        .enumerate()
        .filter(|(_, heap)| heap.flags.contains(ash::vk::MemoryHeapFlags::DEVICE_LOCAL))
        .max_by_key(|(_, heap)| heap.size)?;
    Some(budget.heap_budget[largest].saturating_sub(budget.heap_usage[largest]))
}

#[cfg(target_vendor = "apple")]
fn free(_adapter: &wgpu::Adapter) -> Option<u64> {
    None
}

fn adapters() -> Vec<wgpu::Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let mut adapters = block_on(instance.enumerate_adapters(backends));
    adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    adapters
}

/// An open device with the pipelines compiled for it, which clones share.
#[derive(Clone, Debug)]
pub struct Device {
    pub(crate) raw: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    info: DeviceInfo,
    pipelines: Arc<Mutex<Pipelines>>,
    lost: Arc<OnceLock<String>>,
    /// What the device complained of outside of any call, so that it is not lost.
    complaint: Arc<Mutex<Option<String>>>,
    dropped: Dropped,
    allocated: Arc<AtomicU64>,
    /// The most bytes that may be held.
    limit: Arc<AtomicU64>,
    none: View,
    /// What downloads came through, for the next ones.
    staging: Arc<Mutex<Vec<wgpu::Buffer>>>,
}

impl Device {
    /// Opens the device `index` of [`devices`].
    pub fn open(index: usize) -> Result<Self, GpuError> {
        let adapters = adapters();
        let adapter = adapters.get(index).ok_or(GpuError::NoDevice { index, found: adapters.len() })?;
        let info = DeviceInfo::of(adapter);
        let limits = adapter.limits();
        let unsupported = |what: String| GpuError::Unsupported { name: info.name.clone(), what };
        if !adapter.features().contains(wgpu::Features::IMMEDIATES) || limits.max_immediate_size < IMMEDIATES
        {
            return Err(unsupported(format!("{IMMEDIATES} bytes of immediate data")));
        }
        if limits.max_storage_buffers_per_shader_stage < BINDINGS {
            return Err(unsupported(format!("{BINDINGS} storage buffers for a shader")));
        }
        let (raw, queue) = block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("moeflux"),
            required_features: wgpu::Features::IMMEDIATES | (adapter.features() & READS_HOST),
            required_limits: limits,
            ..Default::default()
        }))
        .map_err(|error| GpuError::Open { name: info.name.clone(), cause: error.to_string() })?;

        let lost = Arc::new(OnceLock::new());
        let cause = Arc::clone(&lost);
        raw.set_device_lost_callback(move |reason, message| {
            // Only the first reason counts.
            let _ = cause.set(format!("{reason:?}: {message}"));
        });
        let complaint = Arc::new(Mutex::new(None));
        let heard = Arc::clone(&complaint);
        raw.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            heard.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.to_string());
        }));

        let dropped = Dropped::default();
        let allocated = Arc::new(AtomicU64::new(0));
        let none = view(&raw, 64, 0, Home::Device, &dropped);
        let pipelines = Arc::default();
        let staging = Arc::default();
        let limit = Arc::new(AtomicU64::new(u64::MAX));
        Ok(Device { raw, queue, info, pipelines, lost, complaint, dropped, allocated, limit, none, staging })
    }

    /// Whether both are the same opening of a device.
    pub fn is(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.pipelines, &other.pipelines)
    }

    /// What it is.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Memory for `len` elements, zeroed. `what` it is for is said if there is none.
    pub fn alloc(&self, what: &str, len: usize) -> Result<View, GpuError> {
        self.alloc_in(Home::Device, what, len)
    }

    /// The same in the host's memory, locked there: shaders read it over the link between host and device, and copies fill
    /// it. It does not count as the device's.
    pub fn alloc_on_host(&self, what: &str, len: usize) -> Result<View, GpuError> {
        if !self.info.reads_host {
            let what = "shaders that read the host's memory".to_owned();
            return Err(GpuError::Unsupported { name: self.info.name.clone(), what });
        }
        self.alloc_in(Home::Host, what, len)
    }

    fn alloc_in(&self, home: Home, what: &str, len: usize) -> Result<View, GpuError> {
        let bytes = len.max(1) as u64 * 4;
        let limit = self.info.binding_limit;
        if bytes > limit {
            return Err(GpuError::BufferTooLarge { what: what.to_owned(), bytes, limit });
        }
        let held = self.held_bytes().saturating_add(home.device_bytes(bytes));
        if held > self.limit.load(Ordering::Relaxed) {
            return Err(GpuError::OutOfMemory { what: what.to_owned(), bytes });
        }
        let id = self.allocated.fetch_add(1, Ordering::Relaxed) + 1;
        let memory = self.raw.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = view(&self.raw, len, id, home, &self.dropped);
        match (block_on(memory.pop()), home) {
            (None, _) => self.usable().map(|()| buffer),
            (Some(_), Home::Device) => Err(GpuError::OutOfMemory { what: what.to_owned(), bytes }),
            (Some(_), Home::Host) => Err(GpuError::OutOfHostMemory { what: what.to_owned(), bytes }),
        }
    }

    /// A copy of `values` (elements of 32 bits) on the device.
    pub fn upload<T: bytemuck::Pod>(&self, what: &str, values: &[T]) -> Result<View, GpuError> {
        let view = self.alloc(what, size_of_val(values) / 4)?;
        self.write(&view, values);
        Ok(view)
    }

    /// Writes `values` to the start of a view, before what is submitted next.
    pub fn write<T: bytemuck::Pod>(&self, view: &View, values: &[T]) {
        assert!(size_of_val(values).is_multiple_of(4) && size_of_val(values) / 4 <= view.len());
        if !values.is_empty() {
            self.queue.write_buffer(&view.buffer().raw, view.bytes().start, bytemuck::cast_slice(values));
        }
    }

    /// A copy of a view's elements on the host, after everything submitted.
    pub fn download<T: bytemuck::Pod>(&self, view: &View) -> Result<Vec<T>, GpuError> {
        if view.is_empty() {
            return Ok(Vec::new());
        }
        self.submit_and_download(self.encoder(), view)?.finish()
    }

    /// Submits what was recorded and, after it, a copy of a view's elements to the host. Does not wait.
    pub fn submit_and_download(&self, mut enc: Encoder<'_>, view: &View) -> Result<Download, GpuError> {
        let recorded = self.record_download(&mut enc, view);
        Ok(recorded.submitted(enc.submit_marked()?))
    }

    /// Records a copy of a view's elements to the host.
    pub fn record_download(&self, enc: &mut Encoder<'_>, view: &View) -> RecordedDownload {
        let bytes = view.bytes();
        let size = bytes.end - bytes.start;
        let staging = self.staging(size);
        enc.commands().copy_buffer_to_buffer(&view.buffer().raw, bytes.start, &staging, 0, size);
        RecordedDownload { device: self.clone(), staging, size }
    }

    /// Memory that the host can read, of so many bytes at least: the least of what is held that is enough.
    fn staging(&self, size: u64) -> wgpu::Buffer {
        let mut held = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let enough = held.iter().enumerate().filter(|(_, buffer)| buffer.size() >= size);
        match enough.min_by_key(|(_, buffer)| buffer.size()).map(|(index, _)| index) {
            Some(index) => held.swap_remove(index),
            None => self.raw.create_buffer(&wgpu::BufferDescriptor {
                label: Some("download"),
                size: size.next_power_of_two(),
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }),
        }
    }

    /// Keeps such memory for the next time, but not the least of it if there is much.
    fn give_staging(&self, buffer: wgpu::Buffer) {
        let mut held = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        held.push(buffer);
        if held.len() > STAGING
            && let Some((least, _)) = held.iter().enumerate().min_by_key(|(_, buffer)| buffer.size())
        {
            held.swap_remove(least);
        }
    }

    /// Bytes of memory that are held.
    pub fn held_bytes(&self) -> u64 {
        self.dropped.held_bytes()
    }

    /// From now on more memory than `bytes` is [none](GpuError::OutOfMemory). What is held stays.
    pub fn limit_memory(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Begins to record commands.
    pub fn encoder(&self) -> Encoder<'_> {
        Encoder::new(self)
    }

    /// Waits until everything submitted has run; `op` is what the wait is for.
    pub fn wait(&self, op: &str) -> Result<(), GpuError> {
        self.wait_until(op, None)
    }

    /// Waits until a submission and those before it have run.
    pub fn wait_for(&self, op: &str, mark: &Mark) -> Result<(), GpuError> {
        self.wait_until(op, Some(mark.0.clone()))
    }

    fn wait_until(&self, op: &str, submission_index: Option<wgpu::SubmissionIndex>) -> Result<(), GpuError> {
        let poll = wgpu::PollType::Wait { submission_index, timeout: Some(PATIENCE) };
        let polled = self.raw.poll(poll);
        self.usable()?;
        match polled {
            Ok(_) => Ok(()),
            Err(wgpu::PollError::Timeout) => Err(GpuError::Timeout { op: op.to_owned(), after: PATIENCE }),
            Err(error) => Err(GpuError::Failed { op: op.to_owned(), cause: error.to_string() }),
        }
    }

    /// Whether the device has neither gone nor complained.
    pub(crate) fn usable(&self) -> Result<(), GpuError> {
        if let Some(cause) = self.lost.get() {
            return Err(GpuError::Lost { cause: cause.clone() });
        }
        match self.complaint.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(cause) => Err(GpuError::Failed { op: "submission".to_owned(), cause }),
            None => Ok(()),
        }
    }

    /// What a shader that needs no view in a place is given.
    pub(crate) fn none(&self) -> &View {
        &self.none
    }

    /// The pipelines, without what has gone.
    pub(crate) fn pipelines(&self) -> std::sync::MutexGuard<'_, Pipelines> {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        pipelines.forget(&self.dropped.take());
        pipelines
    }

    /// Every program compiled so far, with its whole source (WGSL).
    pub fn shaders(&self) -> Vec<(&'static Program, String)> {
        self.pipelines().shaders()
    }

    /// Gives the device up, as if it were lost: for tests of what happens then.
    pub fn destroy(&self) {
        self.raw.destroy();
    }
}

/// Downloads whose memory is kept.
const STAGING: usize = 3;

/// A copy of elements to the host that is recorded, but not submitted.
#[derive(Debug)]
pub struct RecordedDownload {
    device: Device,
    staging: wgpu::Buffer,
    size: u64,
}

impl RecordedDownload {
    /// The elements, on their way since the submission `mark`.
    pub fn submitted(self, mark: Mark) -> Download {
        let RecordedDownload { device, staging, size } = self;
        staging.map_async(wgpu::MapMode::Read, 0..size, |_| {});
        Download { device, staging, size, mark }
    }
}

/// Elements on their way to the host.
#[derive(Debug)]
pub struct Download {
    device: Device,
    staging: wgpu::Buffer,
    size: u64,
    mark: Mark,
}

impl Download {
    /// The submission that brings them.
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Waits for them, but not for what was submitted later.
    pub fn finish<T: bytemuck::Pod>(self) -> Result<Vec<T>, GpuError> {
        let mut values = Vec::new();
        self.finish_into(&mut values).map(|()| values)
    }

    /// The same, into memory that is there.
    pub fn finish_into<T: bytemuck::Pod>(self, values: &mut Vec<T>) -> Result<(), GpuError> {
        let Download { device, staging, size, mark } = self;
        device.wait_for("download", &mark)?;
        let failed = |cause: String| GpuError::Failed { op: "download".to_owned(), cause };
        let mapped = staging.get_mapped_range(0..size).map_err(|error| failed(error.to_string()))?;
        values.clear();
        match bytemuck::try_cast_slice(&mapped) {
            Ok(mapped) => values.extend_from_slice(mapped),
            Err(_) => *values = bytemuck::pod_collect_to_vec(&mapped),
        }
        drop(mapped);
        staging.unmap();
        device.give_staging(staging);
        Ok(())
    }
}

/// Whose memory a buffer is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Home {
    Device,
    Host,
}

impl Home {
    /// The device's part of so many bytes.
    fn device_bytes(self, bytes: u64) -> u64 {
        if self == Home::Device { bytes } else { 0 }
    }
}

fn view(raw: &wgpu::Device, len: usize, id: u64, home: Home, dropped: &Dropped) -> View {
    let size = len.max(1) as u64 * 4;
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    // What is mapped to be read, but not to be written, is not put into the device's memory.
    let usage = if home == Home::Host { usage | wgpu::BufferUsages::MAP_READ } else { usage };
    let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
    View::new(raw.create_buffer(&descriptor), id, len, home.device_bytes(size), dropped.clone())
}

/// Runs a future that needs no one else to make progress.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    let start = Instant::now();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        if start.elapsed() > Duration::from_millis(1) {
            std::thread::sleep(Duration::from_millis(1));
        } else {
            std::thread::yield_now();
        }
    }
}
