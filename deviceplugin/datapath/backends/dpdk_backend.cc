#include "deviceplugin/datapath/backends/dpdk_backend.h"

#include <chrono>
#include <exception>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/control_channel.h"
#include "common/event_thread.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/paths.h"
#include "common/port_settings.h"
#include "common/task.h"
#include "deviceplugin/datapath/hardware/requested_settings.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/differences.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/programs.h"
#include "deviceplugin/datapath/model/queue_events.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/processes/supervised_process.h"
#include "deviceplugin/datapath/processes/worker_handle.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {
namespace {

// A card's firmware has to report its queues; a node's first process also loads libraries.
constexpr auto kStartTime = std::chrono::seconds(15);
constexpr auto kHeartbeat = std::chrono::seconds(5);

}  // namespace

DpdkBackend::DpdkBackend(EventThread& thread, const Programs& programs, const Paths& paths,
                         std::function<void()> onChange)
    : thread_(thread), programs_(programs), paths_(paths), onChange_(std::move(onChange)) {
  makeDirectory(paths_.pmds(), 0700);
}

PortSettings DpdkBackend::resolve(const std::string& id, const OfferedDevice&,
                                  const PortSettings& settings) const {
  return hardwareSettings(id, settings);
}

OfferedDevice DpdkBackend::prepare(const std::string&, OfferedDevice offer, Clock::time_point,
                                   const std::function<bool()>&) {
  return offer;  // only starting it shows whether the driver accepts the function
}

std::shared_ptr<SupervisedProcess> DpdkBackend::find(const std::string& id) const {
  Lock lock(mutex_);
  const auto found = processes_.find(id);
  return found == processes_.end() ? nullptr : found->second;
}

std::shared_ptr<SupervisedProcess> DpdkBackend::launch(const std::string& id,
                                                       const DeviceConfig& device) {
  makeDirectory(std::filesystem::path(paths_.pmdControl(id)).parent_path(), 0700);
  std::vector<std::string> arguments = {programs_.pmd,
                                        "--device=" + id,
                                        "--pci=" + device.pciAddress,
                                        "--driver=" + device.dpdkDriver,
                                        "--socket=" + paths_.pmdSocket(id),
                                        "--control=" + paths_.pmdControl(id),
                                        "--sysfs=" + programs_.sysfs,
                                        "--log-level=" + programs_.logLevel,
                                        "--log-format=" + programs_.logFormat};
  if (!device.devargs.empty()) arguments.push_back("--devargs=" + device.devargs);
  auto process = std::make_shared<SupervisedProcess>(
      thread_,
      SupervisedProcess::Plan{"vdpa-pmd of " + id, std::move(arguments), paths_.pmdControl(id),
                              programs_.cgroupRoot, kHeartbeat},
      SupervisedProcess::Handlers{[](SupervisedProcess&, control::HelloAnswer hello) -> Task<void> {
                                    // A process that fails answers briefly to report why.
                                    const auto& status = hello.pmd().status();
                                    if (!status.ready()) throw std::runtime_error(status.reason());
                                    co_return;
                                  },
                                  nullptr, onChange_});
  std::shared_ptr<SupervisedProcess> previous = process;
  {
    Lock lock(mutex_);
    processes_[id].swap(previous);
  }
  return process;  // the previous one ends without the mutex: it waits for the event thread
}

std::shared_ptr<SupervisedProcess> DpdkBackend::startDriver(const std::string& id,
                                                            const DeviceConfig& device) {
  stopStray(paths_.pmdControl(id));  // if the start could not stop it: its arguments may differ
  const auto process = launch(id, device);
  if (process->waitUp(Clock::now() + kStartTime, true)) {
    failures_.remove(id);
    return process;
  }
  const auto status = process->status();
  startFailed(id, status.reason);
  if (status.deaths > 0) throw std::runtime_error(status.reason);
  throw RefusedError(Refusal::aborted, status.reason);
}

void DpdkBackend::startFailed(const std::string& id, const std::string& reason) {
  failures_.add(id, reason);
  onChange_();
}

bool DpdkBackend::retry(const std::string& id, const OfferedDevice& offer) {
  bool well = true;
  try {
    startDriver(id, offer.device);
  } catch (const std::exception&) {  // already recorded
    well = false;
  }
  try {
    end(id);
  } catch (const std::exception& error) {
    startFailed(id, error.what());
    well = false;
  }
  return well;
}

void DpdkBackend::start(OwnerRecord& record) {
  const std::string& id = record.attachment.deviceId;
  const auto process = startDriver(id, record.device);
  const auto answer = process->call(helloRequest());
  if (const auto pairs = answer.hello().pmd().queue_pairs(); pairs > 0)
    record.attachment.queuePairs = pairs;
}

void DpdkBackend::resume(const OwnerRecord& record) {
  launch(record.attachment.deviceId, record.device);
}

std::optional<EngineAddress> DpdkBackend::engine(const OwnerRecord& record) const {
  return EngineAddress::vhostUser(paths_.pmdSocket(record.attachment.deviceId));
}

void DpdkBackend::stop(const OwnerRecord& record) {
  end(record.attachment.deviceId);
}

void DpdkBackend::end(const std::string& id) {
  if (const auto process = find(id)) {
    process->stop();
    Lock lock(mutex_);
    processes_.erase(id);
  } else {
    stopStray(paths_.pmdControl(id));  // of an earlier vdpa-datapath
  }
  std::filesystem::remove_all(std::filesystem::path(paths_.pmdControl(id)).parent_path());
}

void DpdkBackend::upgrade(const OwnerRecord& record) {
  try {
    if (const auto process = find(record.attachment.deviceId)) process->stop();
  } catch (const std::exception& error) {
    log::error("{}", error.what());  // the new process is restarted until the device is free
  }
  launch(record.attachment.deviceId, record.device);
}

void DpdkBackend::check(const OwnerRecord& record, Differences& differences) {
  const auto process = find(record.attachment.deviceId);
  if (!process)
    differences.add("{} has no vdpa-pmd", record.attachment.deviceId);
  else if (const auto status = process->settled(); !status.up)
    differences.add("{}", status.reason);
}

std::string DpdkBackend::unhealthy(const std::string& id, const OfferedDevice&) const {
  if (auto reason = failures_.reason(id); !reason.empty()) return reason;
  const auto process = find(id);
  if (!process) return "";
  const auto status = process->status();
  return status.up || status.deaths == 0 ? "" : status.reason;
}

std::vector<std::string> DpdkBackend::stopOthers(
    const std::function<bool(const std::string& id)>& attached) {
  std::vector<std::string> ended;
  for (const auto& entry : std::filesystem::directory_iterator(paths_.pmds())) {
    const std::string id = entry.path().filename();
    if (attached(id)) continue;
    try {
      if (stopStray(paths_.pmdControl(id))) ended.push_back(id);
      std::filesystem::remove_all(entry.path());
    } catch (const std::exception& error) {
      log::error("{}", error.what());
    }
  }
  return ended;
}

std::map<std::string, unsigned> DpdkBackend::deathsByDevice() const {
  Lock lock(mutex_);
  std::map<std::string, unsigned> deaths;
  for (const auto& [id, process] : processes_) deaths[id] = process->status().deaths;
  return deaths;
}

unsigned DpdkBackend::deaths() const {
  unsigned all = 0;
  for (const auto& [id, deaths] : deathsByDevice()) all += deaths;
  return all;
}

std::vector<QueueEvents> DpdkBackend::readQueues(const std::string& id,
                                                 std::chrono::milliseconds timeout) const {
  const auto process = find(id);
  if (!process) return {};
  control::Request request;
  request.mutable_stats();
  const auto answer = process->call(std::move(request), timeout);
  std::vector<QueueEvents> queues;
  for (const auto& from : answer.pmd_stats().queues()) {
    QueueEvents queue{from.queue(), {}};
    for (const auto& counter : from.counters()) queue.events[counter.name()] = counter.value();
    queues.push_back(std::move(queue));
  }
  return queues;
}

}  // namespace vdpa::datapath
