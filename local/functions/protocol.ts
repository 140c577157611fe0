/** What the host and an isolate say to each other: requests over the isolate's socket, the rest over the control socket. */

/** The one request header the host sends; it holds a {@linkcode Delivery} as ASCII-only JSON. */
export const deliveryHeader = 'x-holdfast-delivery'
/** Carries a function's own `content-encoding` past `fetch`, which would decode the body. */
export const encodingHeader = 'x-holdfast-content-encoding'
/** Environment variable that holds an {@linkcode IsolateSetup}; gone before the function's code runs. */
export const setupVariable = 'HOLDFAST_ISOLATE'

/** Everything an isolate needs to start serving. */
export interface IsolateSetup {
  id: string
  /** Path of the host's control socket. */
  controlPath: string
  /** Path of the socket on which this isolate serves requests. */
  servePath: string
  /** File URL of the function's entry point. */
  entrypoint: string
  /** Variables that Deno itself needs to start and that the function must not see. */
  hiddenVariables: string[]
}

/** A request's identity and true headers; `fetch` may add, drop or rewrite what it sends itself. */
export interface Delivery {
  id: string
  headers: [name: string, value: string][]
  /** Address of the client, for the handler's `info.remoteAddr`. */
  peerAddress: string
}

/** Isolate to host. `started` is on the wire before the handler runs: a request without it was never handed over. */
export type FromIsolate =
  | { type: 'hello'; id: string }
  | { type: 'ready' }
  | { type: 'bootError'; message: string }
  | { type: 'started'; id: string }
  | { type: 'waiting'; count: number }
  | { type: 'pong' }

/** Why an isolate is asked to go, as `beforeunload` tells the function in `detail.reason`. */
export type RetireReason = 'wall_clock' | 'early_drop' | 'termination'

/** Host to isolate. After `retire` the isolate exits as soon as nothing is under way in it. */
export type ToIsolate =
  | { type: 'ping' }
  | { type: 'abandoned'; id: string }
  | { type: 'retire'; reason: RetireReason }

/** JSON that fits into a header or a line: no character outside printable ASCII. */
export function asciiJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[^\x20-\x7e]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}
