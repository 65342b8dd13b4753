// Answers under way: any number of conversations may wait for one.

import { addChunk, endAnswer, newAnswer } from "./answer.js";
import { toRequest } from "./conversation.js";
import { HitMeter } from "./hit-meter.js";
import { streamChat } from "./server.js";

const running = new Map();

export const isRunning = (conversation) => running.has(conversation.id);

export function stop(conversation) {
  running.get(conversation.id)?.abort();
}

/**
 * Asks for the next message of a conversation and adds it, piece by piece. `changed()` is called after each piece and at
 * least each second. Returns the answer when it has ended, however it did.
 */
export async function generate(conversation, changed) {
  const controller = new AbortController();
  const request = toRequest(conversation);
  const answer = newAnswer(conversation.settings.model, Date.now());
  const meter = new HitMeter(request.model, (rate) => { answer.stats.hitRate = rate; });
  conversation.messages.push(answer);
  running.set(conversation.id, controller);
  const clock = setInterval(() => {
    meter.tick();
    changed();
  }, 1000);
  meter.tick();
  changed();
  try {
    for await (const chunk of streamChat(request, controller.signal)) {
      addChunk(answer, chunk, Date.now());
      changed();
    }
    endAnswer(answer, Date.now());
  } catch (error) {
    const { message, kind = "page", status = 0, retryAfter = null } = error;
    if (controller.signal.aborted) endAnswer(answer, Date.now(), "stopped");
    else endAnswer(answer, Date.now(), "error", { message, kind, status, retryAfter });
  } finally {
    clearInterval(clock);
    running.delete(conversation.id);
  }
  await meter.tick();
  changed();
  return answer;
}
