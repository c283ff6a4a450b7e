// A CUDA device whose memory is the host's. Every operation on the CUDA key runs the CPU kernel on the same bytes (a
// boxed fallback turns arguments and results), so that numbers are exact and nothing has to be written per operation.
//
//   capture      an operation between capture_begin and capture_end is not run: it is put on a tape with its arguments.
//                What is a Python number is a constant of the tape; what is a tensor is read when the tape is replayed
//   replay       runs the tape; results go to the tensors that the capture returned
//   syncs        host reads (.item() and the like) and blocking copies are counted; an error in sync mode 2, and always
//                during a capture
//   launched     the operations that would be kernels
//
// What it does not show: time, streams, races, a device's own rounding.
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/library.h>
#include <functional>
#include <set>
#include <unordered_map>

namespace py = pybind11;
using torch::jit::Stack;
static const c10::Device CUDA(c10::kCUDA, 0);
static const c10::Device CPU(c10::kCPU);

// -- device guard -----------------------------------------------------------------------------------------------------
struct Guard final : c10::impl::NoOpDeviceGuardImpl<c10::kCUDA> {
  c10::Device exchangeDevice(c10::Device) const override { return CUDA; }
  c10::Device getDevice() const override { return CUDA; }
  c10::Stream s() const noexcept { return c10::Stream(c10::Stream::DEFAULT, CUDA); }
  c10::Stream getStream(c10::Device) const noexcept override { return s(); }
  c10::Stream getDefaultStream(c10::Device) const override { return s(); }
  c10::Stream getNewStream(c10::Device, int) const override { return s(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return s(); }
  bool isStreamCapturing(const c10::Stream&) const override;
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};
static c10::impl::DeviceGuardImplRegistrar guard(c10::kCUDA, new Guard());

// -- hooks: that there is an accelerator, and which ----------------------------------------------------------------
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
namespace at {
struct SimHooks final : CUDAHooksInterface {
  explicit SimHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  int getNumGPUs() const override { return 1; }
  DeviceIndex current_device() const override { return 0; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  DeviceIndex exchangeDevice(DeviceIndex) const override { return 0; }
  DeviceIndex maybeExchangeDevice(DeviceIndex) const override { return 0; }
  void setCurrentDevice(DeviceIndex) const override {}
  bool isPinnedPtr(const void*) const override { return false; }
  Device getDeviceFromPtr(void*) const override { return Device(kCUDA, 0); }
  const Generator& getDefaultGenerator(DeviceIndex) const override { return at::detail::getDefaultCPUGenerator(); }
  Generator getNewGenerator(DeviceIndex) const override { return at::detail::createCPUGenerator(); }
};
C10_REGISTER_TYPED_CLASS(CUDAHooksRegistry, "CUDAHooks", SimHooks);
}  // namespace at

// -- memory -----------------------------------------------------------------------------------------------------------
struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    auto* held = new c10::DataPtr(c10::GetCPUAllocator()->allocate(n));
    return {held->get(), held, [](void* p) { delete static_cast<c10::DataPtr*>(p); }, CUDA};
  }
  void copy_data(void* d, const void* s, size_t n) const override { default_copy_data(d, s, n); }
};
static Memory memory;

// -- what is observed -------------------------------------------------------------------------------------------------
static std::vector<std::string> launched;  // operations that are kernels
static std::vector<std::string> syncs;     // host reads and blocking copies
static int sync_mode = 0;                  // 2: error
struct Step { std::function<void()> run; };
static std::vector<Step>* tape = nullptr;  // not null: capturing
static std::set<c10::StorageImpl*> fresh;  // allocated since the capture began

bool Guard::isStreamCapturing(const c10::Stream&) const { return tape != nullptr; }

static void synchronises(const std::string& name) {
  if (tape) throw std::runtime_error(name + ": operation not permitted when stream is capturing");
  if (sync_mode == 2) TORCH_CHECK(false, "called a synchronizing CUDA operation");
  syncs.push_back(name);
}

// -- the same bytes on the other device -------------------------------------------------------------------------------
static at::Tensor over(const c10::Storage& storage, const at::Tensor& like, bool cuda) {
  auto out = at::detail::make_tensor<at::TensorImpl>(
      c10::Storage(storage), c10::DispatchKeySet(cuda ? c10::DispatchKey::CUDA : c10::DispatchKey::CPU), like.dtype());
  out.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  return out;
}
static c10::Storage alias(const c10::Storage& s, c10::Device device) {
  auto* keep = new c10::Storage(s);
  c10::DataPtr p(s.mutable_data(), keep, [](void* k) { delete static_cast<c10::Storage*>(k); }, device);
  auto* allocator = device.is_cuda() ? static_cast<c10::Allocator*>(&memory) : c10::GetCPUAllocator();
  return c10::Storage(c10::Storage::use_byte_size_t(), s.nbytes(), std::move(p), allocator, /*resizable=*/true);
}

struct Call {  // one operation: its arguments turned to the CPU, its results turned back
  std::unordered_map<c10::StorageImpl*, c10::Storage> to_cpu;   // CUDA storage -> its CPU alias
  std::unordered_map<c10::StorageImpl*, c10::Storage> to_cuda;  // and back
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs;         // (CUDA, CPU)
  at::Tensor down(const at::Tensor& t) {
    if (!t.defined() || !t.is_cuda()) return t;
    for (auto& [a, b] : pairs) if (a.is_same(t)) return b;
    auto* impl = t.storage().unsafeGetStorageImpl();
    if (!to_cpu.count(impl)) {
      auto s = alias(t.storage(), CPU);
      to_cuda.emplace(s.unsafeGetStorageImpl(), t.storage());
      to_cpu.emplace(impl, s);
    }
    auto c = over(to_cpu.at(impl), t, false);
    pairs.emplace_back(t, c);
    return c;
  }
  at::Tensor up(const at::Tensor& t) {
    if (!t.defined() || t.is_cuda()) return t;
    for (auto& [a, b] : pairs) if (b.is_same(t)) return a;
    auto it = to_cuda.find(t.storage().unsafeGetStorageImpl());
    return over(it == to_cuda.end() ? alias(t.storage(), CUDA) : it->second, t, true);
  }
  void resized() {  // out= tensors that the kernel gave other sizes
    for (auto& [a, b] : pairs)
      if (a.sizes() != b.sizes() || a.strides() != b.strides()) {
        a.unsafeGetTensorImpl()->set_storage_keep_dtype(alias(b.storage(), CUDA));
        a.unsafeGetTensorImpl()->set_sizes_and_strides(b.sizes(), b.strides(), b.storage_offset());
      }
  }
  c10::IValue turn(const c10::IValue& v, bool to_device) {
    auto f = [&](const at::Tensor& t) { return to_device ? up(t) : down(t); };
    if (v.isTensor()) return f(v.toTensor());
    if (v.isTensorList()) { c10::List<at::Tensor> l; for (const at::Tensor t : v.toTensorList()) l.push_back(f(t)); return l; }
    if (v.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> l;
      for (const std::optional<at::Tensor> t : v.toOptionalTensorList()) l.push_back(t ? std::optional<at::Tensor>(f(*t)) : std::nullopt);
      return l;
    }
    if (v.isDevice() && !to_device && v.toDevice().is_cuda()) return CPU;
    return v;
  }
};

static const std::set<std::string> VIEWS = {"aten::as_strided", "aten::view", "aten::_reshape_alias", "aten::unfold", "aten::alias", "aten::set_", "aten::resize_",
    "aten::empty", "aten::empty_strided", "aten::record_stream", "aten::is_set_to", "aten::_has_compatible_shallow_copy_type", "aten::view_as_real", "aten::view_as_complex"};
static const std::set<std::string> READS = {"aten::_local_scalar_dense", "aten::equal", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::unique_dim", "aten::_unique2"};

static Stack on_cpu(const c10::OperatorHandle& op, const Stack& arguments, Call& call) {
  Stack stack;
  for (const auto& v : arguments) stack.push_back(call.turn(v, false));
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack);
  call.resized();
  return stack;
}

static void fallback(const c10::OperatorHandle& op, Stack* stack) {
  const auto& schema = op.schema();
  const size_t n = schema.arguments().size();
  Stack arguments(stack->end() - n, stack->end());
  stack->erase(stack->end() - n, stack->end());
  const auto& name = schema.name();
  const bool view = VIEWS.count(name) > 0;
  if (READS.count(name)) synchronises(name);
  if (name == "aten::copy_") {
    const auto a = arguments[0].toTensor(), b = arguments[1].toTensor();
    if (a.is_cuda() != b.is_cuda() && !arguments[2].toBool()) synchronises(a.is_cuda() ? "copy_ to the device" : "copy_ from the device");
  }
  if (!view) launched.push_back(name);
  if (!view && name != "aten::copy_" && name != "aten::index" && name != "aten::index_put_" && name != "aten::_index_put_impl_") {
    // As CUDA kernels do: a tensor of the host may only be a number that is read.
    for (size_t i = 0; i < n; i++) {
      const auto* info = schema.arguments()[i].alias_info();
      const bool written = info && info->isWrite();
      auto check = [&](const at::Tensor& t) {
        TORCH_CHECK(!t.defined() || t.is_cuda() || (t.dim() == 0 && !written), "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! (", name, ")");
      };
      if (arguments[i].isTensor()) check(arguments[i].toTensor());
      if (arguments[i].isTensorList()) for (const at::Tensor t : arguments[i].toTensorList()) check(t);
    }
  }
  if (!tape || view) {
    Call call;
    for (auto& v : on_cpu(op, arguments, call)) stack->push_back(call.turn(v, true));
    return;
  }
  // Capturing: nothing of the arguments may change, so what the operation writes is put back (what is new held nothing, and
  // an index that is left unwritten would be out of range). It runs for the shapes of its results.
  std::vector<std::pair<at::Tensor, at::Tensor>> saved;
  {
    Call call;
    auto keep = [&](const at::Tensor& t) { if (t.defined() && t.is_cuda() && !fresh.count(t.storage().unsafeGetStorageImpl())) { auto c = call.down(t); saved.emplace_back(c, c.clone()); } };
    for (const auto& v : arguments) {
      if (v.isTensor()) keep(v.toTensor());
      if (v.isTensorList()) for (const at::Tensor t : v.toTensorList()) keep(t);
    }
    for (auto& v : on_cpu(op, arguments, call)) stack->push_back(call.turn(v, true));
    for (auto& [now, before] : saved) if (now.sizes() == before.sizes()) now.copy_(before);
  }
  std::vector<at::Tensor> results;
  for (const auto& v : *stack) {
    if (v.isTensor()) results.push_back(v.toTensor());
    else if (v.isTensorList()) for (const at::Tensor t : v.toTensorList()) results.push_back(t);
  }
  tape->push_back({[op, arguments, results]() {
    Call call;
    size_t i = 0;
    auto put = [&](const at::Tensor& t) {
      const auto& kept = results[i++];
      if (!kept.defined() || call.up(t).is_same(kept)) return;
      auto down = call.down(kept);
      if (down.data_ptr() != t.data_ptr()) down.copy_(t);
    };
    for (auto& v : on_cpu(op, arguments, call)) {
      if (v.isTensor()) put(v.toTensor());
      else if (v.isTensorList()) for (const at::Tensor t : v.toTensorList()) put(t);
    }
  }});
}

static at::Tensor noted(at::Tensor t) {
  if (tape) fresh.insert(t.storage().unsafeGetStorageImpl());
  return t;
}
static at::Tensor empty(c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return noted(at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &memory, c10::DispatchKeySet(c10::DispatchKey::CUDA), c10::dtype_or_default(dtype), format));
}
static at::Tensor empty_strided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return noted(at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &memory, c10::DispatchKeySet(c10::DispatchKey::CUDA), c10::dtype_or_default(dtype)));
}

static at::Tensor& set_storage(at::Tensor& self, c10::Storage source, c10::SymInt offset, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(source));
  self.unsafeGetTensorImpl()->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), offset.expect_int());
  return self;
}
static at::Tensor& set_whole(at::Tensor& self, c10::Storage source) {
  const int64_t n = source.nbytes() / self.itemsize();
  return set_storage(self, std::move(source), 0, {c10::SymInt(n)}, {c10::SymInt(1)});
}

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }
TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("set_.source_Storage", set_whole);
  m.impl("set_.source_Storage_storage_offset", set_storage);
  for (const char* name : {"copy_", "_foreach_copy_"}) m.impl(name, torch::CppFunction::makeFromBoxedFunction<&fallback>());  // composite, by device
}

#include <torch/csrc/utils/pybind.h>
PYBIND11_MODULE(simcuda, m) {
  m.def("host", [](const at::Tensor& t) { return over(alias(t.storage(), CPU), t, false); });  // the same bytes
  c10::SetAllocator(c10::kCUDA, &memory);
  m.def("launched", [] { return launched; });
  m.def("syncs", [] { return syncs; });
  m.def("clear", [] { launched.clear(); syncs.clear(); });
  m.def("set_sync_mode", [](int mode) { sync_mode = mode; });
  m.def("capture_begin", [] { fresh.clear(); tape = new std::vector<Step>(); });
  m.def("capturing", [] { return tape != nullptr; });
  m.def("record", [](py::function f) { if (tape) tape->push_back({[f] { f(); }}); });  // a launch that is no aten operation
  m.def("capture_end", []() -> py::capsule {
    auto* done = tape; tape = nullptr;
    return py::capsule(done, [](void* p) { delete static_cast<std::vector<Step>*>(p); });
  });
  m.def("length", [](py::capsule c) { return static_cast<std::vector<Step>*>(c.get_pointer())->size(); });
  m.def("replay", [](py::capsule c) { c10::InferenceMode no(false); at::NoGradGuard g; for (auto& s : *static_cast<std::vector<Step>*>(c.get_pointer())) s.run(); });
}
