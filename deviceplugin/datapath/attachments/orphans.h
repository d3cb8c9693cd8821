// Decides what happens to an attachment that its owner never detached: from the records, from
// whether the owner's network namespace exists, and from the kubelet's answer. Attachments carries
// it out.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/mutex.h"
#include "common/pod_resources.h"
#include "deviceplugin/datapath/model/attachment.h"

namespace vdpa::datapath {

// An attachment as one scan finds it.
struct ObservedAttachment {
  std::string deviceId;
  std::string resource;
  Owner owner;
  bool namespaceGone = false;
  bool detaching = false;  // its owner has detached it, but undoing it has failed so far
};

struct KubeletAnswer {
  std::vector<PodDevice> held;
  std::string error;  // why the kubelet could not be asked; empty: it answered
};

struct Verdict {
  enum class Fate {
    stays,       // it has an owner
    listed,      // the namespace is gone, but the kubelet lists the device for the owner's pod
    unanswered,  // the namespace is gone, and the kubelet could not be asked
    counting,    // orphaned for less than the grace period
    due,         // to be detached now
  };
  Fate fate = Fate::stays;
  // When it was first found orphaned, as long as every scan since has agreed.
  std::optional<std::chrono::steady_clock::time_point> since;
  std::string error;  // of `unanswered`
};

// Whether the kubelet's answer matters for it.
bool needsKubelet(const ObservedAttachment& attachment);

// The decision about one attachment, by the monotonic clock alone. `before`: the one of the last
// scan. If the kubelet can't be asked, the grace period starts over: after its restart the kubelet
// lists nothing for a while, and the period must not have expired by then.
Verdict decide(const ObservedAttachment& attachment, const KubeletAnswer& answer,
               const Verdict& before, std::chrono::steady_clock::time_point now,
               std::chrono::milliseconds grace);

class Orphans {
 public:
  using Clock = std::chrono::steady_clock;
  struct Counts {
    unsigned abandoned = 0;  // now: in the grace period, or due
    unsigned detached = 0;   // so far
  };

  explicit Orphans(std::chrono::milliseconds grace) : grace_(grace) {}

  // Decides about every attachment there is; returns those to be detached now. Asks the kubelet
  // (`ask` throws if that fails) only when its answer matters.
  std::vector<ObservedAttachment> look(const std::vector<ObservedAttachment>& attachments,
                                       const std::function<std::vector<PodDevice>()>& ask,
                                       Clock::time_point now);
  void countDetached();

  // The text about what will happen to an attachment; empty: nothing.
  std::string outlook(const std::string& deviceId, const AttachmentKey& owner,
                      Clock::time_point now) const;
  Counts counts() const;

 private:
  using Attached = std::pair<std::string, AttachmentKey>;  // the device ID and who has it

  const std::chrono::milliseconds grace_;
  mutable Mutex mutex_;
  std::map<Attached, Verdict> verdicts_ GUARDED_BY(mutex_);  // as of the last scan
  unsigned detached_ GUARDED_BY(mutex_) = 0;
};

}  // namespace vdpa::datapath
