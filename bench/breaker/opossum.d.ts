/** What of opossum the bench uses; the package brings no types. */
export default class CircuitBreaker<T> {
  constructor(action: () => Promise<T>, options: {
    /** Milliseconds; false for none. */
    timeout?: number | false
    resetTimeout?: number
    errorThresholdPercentage?: number
    rollingPercentilesEnabled?: boolean
    enableSnapshots?: boolean
    capacity?: number
  })
  fire(): Promise<T>
  open(): void
  shutdown(): void
  readonly opened: boolean
}
