/** Waiting for a condition, with a bound. */

/** True once it holds; false when it does not within that time. Rejects as soon as the signal fires. */
export async function until(
  condition: () => boolean,
  { withinMs, signal }: { withinMs: number; signal: AbortSignal },
): Promise<boolean> {
  const deadlineAt = performance.now() + withinMs
  while (!condition()) {
    signal.throwIfAborted()
    if (performance.now() >= deadlineAt) return false
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return true
}
