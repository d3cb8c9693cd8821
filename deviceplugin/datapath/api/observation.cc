#include "deviceplugin/datapath/api/observation.h"

#include <chrono>
#include <cstdint>
#include <string>

#include "common/port_settings.h"
#include "deviceplugin/datapath/api/metrics.h"
#include "deviceplugin/datapath/attachments/datapath.h"
#include "deviceplugin/datapath/attachments/node.h"
#include "deviceplugin/datapath/attachments/statistics.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "observe.pb.h"

namespace vdpa::datapath {
namespace {

constexpr std::chrono::milliseconds kTime{800};
// A cgroup without a limit reports UINT64_MAX or, with v1, the largest multiple of a page that fits
// an int64_t.
constexpr uint64_t kNoLimit = uint64_t{1} << 62;

void fill(observe::v1::Attachment& message, const LiveAttachment& live) {
  const Attachment& attachment = live.attachment;
  message.set_device(attachment.deviceId);
  message.set_resource(attachment.resource);
  message.set_pod_namespace(attachment.owner.podNamespace);
  message.set_pod_name(attachment.owner.podName);
  message.set_network(attachment.owner.network);
  message.set_interface(attachment.owner.interface);
  if (attachment.port.vlan.value_or(0) != 0) message.set_vlan(*attachment.port.vlan);
  message.set_state(live.state.substr(0, live.state.find(':')));  // without the reason
  message.set_created(attachment.created);
  message.set_worker_restarts(live.workerDeaths);
}

void fill(observe::v1::Durations& message, const Metrics::Durations& durations) {
  message.set_result(durations.result);
  message.mutable_bounds()->Assign(durations.bounds.begin(), durations.bounds.end());
  message.mutable_counts()->Assign(durations.counts.begin(), durations.counts.end());
  message.set_sum(durations.sum);
}

void fill(observe::v1::Datapath& message, const Statistics& statistics) {
  for (const auto& [resource, counters] : statistics.traffic) {
    auto& traffic = *message.add_traffic();
    traffic.set_device(counters.id);
    traffic.set_resource(resource);
    traffic.set_rx_packets(counters.rxPackets);
    traffic.set_rx_bytes(counters.rxBytes);
    traffic.set_tx_packets(counters.txPackets);
    traffic.set_tx_bytes(counters.txBytes);
    traffic.mutable_drops()->insert(counters.drops.begin(), counters.drops.end());
  }
  for (const auto& [resource, device, queues] : statistics.queues)
    for (const auto& [number, events] : queues) {
      auto& queue = *message.add_queue_events();
      queue.set_device(device);
      queue.set_resource(resource);
      queue.set_queue(number);
      queue.mutable_events()->insert(events.begin(), events.end());
    }
  for (const auto& from : statistics.engines) {
    auto& engine = *message.add_engines();
    engine.set_program(from.program);
    engine.set_resource(from.resource);
    engine.set_device(from.device);
    engine.set_restarts(from.restarts);
  }
  for (const auto& from : statistics.pollers) {
    auto& poller = *message.add_pollers();
    poller.set_resource(from.resource);
    poller.set_number(from.number);
    if (from.core) poller.set_core(*from.core);
    poller.set_busy_ns(static_cast<uint64_t>(from.busy.count()));
  }
  for (const auto& from : statistics.cniCalls) {
    auto& calls = *message.add_cni_calls();
    calls.set_command(from.command);
    calls.set_code(from.code);
    calls.set_count(from.count);
  }
  if (const auto& memory = statistics.memory) {
    message.mutable_memory()->set_used(memory->used);
    if (memory->limit < kNoLimit) message.mutable_memory()->set_limit(memory->limit);
    message.mutable_memory()->set_kills(memory->kills);
  }
}

}  // namespace

observe::v1::Datapath observationOf(const Datapath& datapath, const Metrics& metrics,
                                    ReadProblems& problems) {
  observe::v1::Datapath message;
  message.set_drained(datapath.status.drained());
  for (const auto& live : datapath.status.list())
    if (live.withheld)
      message.add_withheld(live.attachment.deviceId);
    else
      fill(*message.add_attachments(), live);
  const auto orphans = datapath.node.orphans.counts();
  message.set_abandoned(orphans.abandoned);
  message.set_reconciled(orphans.detached);
  fill(message, readStatistics(datapath.node, kTime, problems));
  for (const auto& durations : metrics.attaches()) fill(*message.add_attaches(), durations);
  for (const auto& durations : metrics.detaches()) fill(*message.add_detaches(), durations);
  return message;
}

}  // namespace vdpa::datapath
