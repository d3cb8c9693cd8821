#include "deviceplugin/datapath/attachments/orphans.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/log.h"
#include "common/mutex.h"
#include "common/pod_resources.h"
#include "deviceplugin/datapath/model/owner.h"

namespace vdpa::datapath {
namespace {

using Fate = Verdict::Fate;

bool gives(const std::vector<PodDevice>& held, const ObservedAttachment& attachment) {
  return std::any_of(held.begin(), held.end(), [&](const PodDevice& pod) {
    return pod.deviceId == attachment.deviceId && pod.resource == attachment.resource &&
           pod.podNamespace == attachment.owner.podNamespace &&
           pod.podName == attachment.owner.podName;
  });
}

std::string secondsLeft(const Verdict& verdict, Orphans::Clock::time_point now,
                        std::chrono::milliseconds grace) {
  const auto left = std::chrono::ceil<std::chrono::seconds>(*verdict.since + grace - now);
  return fmt::format("{} s", std::max<int64_t>(0, left.count()));
}

std::string describe(const Verdict& verdict, Orphans::Clock::time_point now,
                     std::chrono::milliseconds grace) {
  switch (verdict.fate) {
    case Fate::stays:
      return "";
    case Fate::listed:
      return "network namespace gone: kept while the kubelet lists the device for its pod";
    case Fate::unanswered:
      return "network namespace gone: kept until the kubelet answers: " + verdict.error;
    case Fate::counting:
      return "abandoned: detached in " + secondsLeft(verdict, now, grace);
    case Fate::due:
      return "abandoned: being detached";
  }
  return "";
}

void logChange(const ObservedAttachment& attachment, const Verdict& before, const Verdict& now,
               Orphans::Clock::time_point time, std::chrono::milliseconds grace) {
  if (before.fate == now.fate) return;
  const std::string owner = describeOwner(attachment.owner);
  if (now.fate == Fate::stays)
    log::info("{}: the network namespace of {} is back", attachment.deviceId, owner);
  else
    log::warn("{} of {}: {}", attachment.deviceId, owner, describe(now, time, grace));
}

}  // namespace

bool needsKubelet(const ObservedAttachment& attachment) {
  return attachment.namespaceGone && !attachment.detaching && !attachment.owner.podName.empty();
}

Verdict decide(const ObservedAttachment& attachment, const KubeletAnswer& answer,
               const Verdict& before, std::chrono::steady_clock::time_point now,
               std::chrono::milliseconds grace) {
  if (attachment.detaching) return {Fate::due, before.since, ""};
  if (!attachment.namespaceGone) return {};
  if (needsKubelet(attachment)) {
    if (!answer.error.empty()) return {Fate::unanswered, std::nullopt, answer.error};
    if (gives(answer.held, attachment)) return {Fate::listed, std::nullopt, ""};
  }
  const auto since = before.since.value_or(now);
  return {now - since >= grace ? Fate::due : Fate::counting, since, ""};
}

std::vector<ObservedAttachment> Orphans::look(const std::vector<ObservedAttachment>& attachments,
                                              const std::function<std::vector<PodDevice>()>& ask,
                                              Clock::time_point now) {
  KubeletAnswer answer;
  if (std::any_of(attachments.begin(), attachments.end(), needsKubelet)) try {
      answer.held = ask();
    } catch (const std::exception& error) {
      answer.error = error.what();
    }

  std::vector<ObservedAttachment> due;
  Lock lock(mutex_);
  std::map<Attached, Verdict> verdicts;
  for (const auto& attachment : attachments) {
    const Attached attached{attachment.deviceId, attachment.owner.key()};
    const auto known = verdicts_.find(attached);
    const Verdict before = known == verdicts_.end() ? Verdict() : known->second;
    Verdict verdict = decide(attachment, answer, before, now, grace_);
    logChange(attachment, before, verdict, now, grace_);
    if (verdict.fate == Fate::due) due.push_back(attachment);
    verdicts.emplace(attached, std::move(verdict));
  }
  verdicts_ = std::move(verdicts);
  return due;
}

void Orphans::countDetached() {
  Lock lock(mutex_);
  ++detached_;
}

std::string Orphans::outlook(const std::string& deviceId, const AttachmentKey& owner,
                             Clock::time_point now) const {
  Lock lock(mutex_);
  const auto verdict = verdicts_.find({deviceId, owner});
  return verdict == verdicts_.end() ? "" : describe(verdict->second, now, grace_);
}

Orphans::Counts Orphans::counts() const {
  Lock lock(mutex_);
  Counts counts{0, detached_};
  for (const auto& [attached, verdict] : verdicts_)
    if (verdict.fate == Fate::counting || verdict.fate == Fate::due) ++counts.abandoned;
  return counts;
}

}  // namespace vdpa::datapath
