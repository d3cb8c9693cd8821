// The engine behind a private vhost-user socket: vdpa-switch moves the packets, or rte_vhost in
// vdpa-pmd hands the rings to a DPDK driver. The engine's process may die or hang at any time: the
// next one gets what the pod has set up, and rings resume where they were.
#pragma once

#include "deviceplugin/datapath/vhost_user/message_socket.h"
#include "deviceplugin/datapath/worker/engines/engine.h"
#include "deviceplugin/datapath/worker/engines/engine_link.h"

namespace vdpa::worker {

class VhostUserEngine : public Engine {
 public:
  // Starts connecting to `path` at once and never gives up.
  VhostUserEngine(EventLoop& loop, std::string path, Events events);
  VhostUserEngine(const VhostUserEngine&) = delete;
  VhostUserEngine& operator=(const VhostUserEngine&) = delete;

  const std::optional<EngineLimits>& limits() const override { return limits_; }
  bool up() const override { return up_; }
  bool running() const override;
  // The features that the driver has agreed on with an earlier engine and that this one lacks:
  // until another comes, or the driver agrees on others, the pod's packets wait in its rings.
  std::string whyWaiting() const override;
  void follow(vhost_user::VhostDevice* device) override;
  // Opens a new connection to the engine, so that it keeps nothing of the pod's.
  void release() override;
  void update() override;
  bool settled() const override;

 private:
  // The state of one ring in the engine.
  struct Handed {
    bool given = false;
    bool enabled = false;
    vhost_user::SharedFd kick, call, error;
  };

  void connect();
  void reconnectLater();
  void lost(const std::string& reason, bool refused);
  void forgetLink();
  void learn();
  void learned();
  void openChannel();
  void onChannel();
  void askLink(std::function<void()> then);
  bool ours() const;
  uint64_t missingFeatures() const;
  void advance();
  void stopRings();
  void shareMemory();
  void giveRing(uint32_t index);
  void refreshRing(uint32_t index);
  void sendDescriptor(vhost_user::Request request, uint32_t index,
                      const vhost_user::SharedFd& descriptor);
  void sendState(vhost_user::Request request, uint32_t index, uint32_t value);
  void set(vhost_user::Request request, const void* payload, size_t size,
           std::vector<vhost_user::SharedFd> descriptors = {});
  void findPosition(uint32_t index);
  void wake();

  EventLoop& loop_;
  const std::string path_;
  const Events events_;

  std::unique_ptr<EngineLink> link_;
  // On which the engine reports that its configuration space has changed; none: it can't.
  std::optional<vhost_user::MessageSocket> channel_;
  EventLoop::Watch channelWatch_;
  std::optional<EngineLimits> limits_;  // of the current or last engine
  bool learned_ = false;                // for this connection
  bool up_ = false;
  std::string lastReason_;
  EventLoop::Timer reconnect_;
  std::chrono::milliseconds backOff_{};

  vhost_user::VhostDevice* device_ = nullptr;
  std::vector<Handed> handed_;
  std::shared_ptr<const vhost_user::MemoryTable> handedMemory_;
  std::optional<uint64_t> handedFeatures_;
  uint32_t stopping_ = 0;   // rings whose GET_VRING_BASE is pending
  bool wakeRings_ = false;  // signal both sides once the rings run
};

}  // namespace vdpa::worker
