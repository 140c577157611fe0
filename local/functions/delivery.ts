/** Handing one request to one isolate, and what can become of it. */
import type { Ending, Isolate } from './isolate.ts'
import { messageOf } from './isolate.ts'
import type { HostLimits } from './limits.ts'
import type { PlatformCode } from './platformError.ts'
import { platformError } from './platformError.ts'
import type { Delivery } from './protocol.ts'
import { asciiJson, deliveryHeader, encodingHeader } from './protocol.ts'
import type { ReplayableBody } from './replayableBody.ts'

/** A client's request, ready to be handed to any isolate, again if need be. */
export interface Parcel {
  url: string
  method: string
  headers: [name: string, value: string][]
  peerAddress: string
  body: ReplayableBody | undefined
  /** Aborts when the client has left. */
  signal: AbortSignal
}

/** How long a broken connection waits for news of its isolate's end. */
const newsMs = 2_000

/**
 * Sends the parcel to the isolate. Undefined means that the isolate ended before it had begun with the request,
 * which may then go to another one; whatever it had begun is answered, never repeated.
 */
export async function deliver(
  parcel: Parcel,
  isolate: Isolate,
  limits: HostLimits,
): Promise<Response | undefined> {
  const delivery: Delivery = {
    id: crypto.randomUUID(),
    headers: parcel.headers,
    peerAddress: parcel.peerAddress,
  }
  let started = false
  let timedOut = false
  const giveUp = new AbortController()
  isolate.inFlight += 1
  isolate.expect(delivery.id, () => {
    started = true
    parcel.body?.commit()
  })
  const settle = once(() => {
    isolate.inFlight -= 1
    isolate.forget(delivery.id)
  })
  const idle = setTimeout(() => {
    timedOut = true
    giveUp.abort()
  }, limits.requestIdleMs)
  try {
    const response = await fetch(parcel.url, {
      method: parcel.method,
      headers: { [deliveryHeader]: asciiJson(delivery), 'accept-encoding': 'identity' },
      body: parcel.body?.stream(),
      redirect: 'manual',
      signal: AbortSignal.any([parcel.signal, giveUp.signal]),
      client: isolate.client,
    })
    return passOn(response, {
      ended: settle,
      brokeOff() {
        isolate.abandon(delivery.id)
        settle()
      },
    })
  } catch {
    if (parcel.signal.aborted || timedOut) isolate.abandon(delivery.id)
    settle()
    if (parcel.signal.aborted) return clientLeft()
    if (timedOut) return idleTimeout(limits)
    return await explain(isolate, () => started)
  } finally {
    clearTimeout(idle)
  }
}

/** What became of a response's body: all of it was passed on, or the rest is not wanted or will not come. */
interface BodyFate {
  ended(): void
  brokeOff(): void
}

/** The function's response as it is, its encoding restored. */
function passOn(response: Response, fate: BodyFate): Response {
  const headers = new Headers(response.headers)
  const encoding = headers.get(encodingHeader)
  if (encoding !== null) {
    headers.delete(encodingHeader)
    headers.set('content-encoding', encoding)
  }
  if (response.status >= 500) {
    headers.set('sb-error-code', 'EDGE_FUNCTION_ERROR')
    headers.append('access-control-expose-headers', 'sb-error-code')
  }
  const body = response.body === null ? null : watchBody(response.body, fate)
  if (body === null) fate.ended()
  return new Response(body, { status: response.status, statusText: response.statusText, headers })
}

function watchBody(
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
  fate: BodyFate,
): ReadableStream<Uint8Array> {
  const reader = body.getReader()
  return new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await reader.read()
        if (!done) return controller.enqueue(value)
        fate.ended()
        controller.close()
      } catch (error) {
        fate.brokeOff()
        controller.error(error)
      }
    },
    async cancel(reason) {
      fate.brokeOff()
      await reader.cancel(reason)
    },
  }, { highWaterMark: 0 })
}

async function explain(isolate: Isolate, started: () => boolean): Promise<Response | undefined> {
  const news = Promise.withResolvers<undefined>()
  const timer = setTimeout(() => news.resolve(undefined), newsMs)
  const ending = await Promise.race([isolate.ended, news.promise])
  clearTimeout(timer)
  if (!started()) {
    // A process that lives but takes no connections has stopped serving: nobody else shall wait for it.
    if (ending === undefined) isolate.kill({ kind: 'crash', message: 'it stopped taking requests' })
    return undefined
  }
  if (ending === undefined) {
    return platformError('WORKER_ERROR', 'The function closed the connection without a response')
  }
  return platformError(
    codeOf(ending),
    `The function's isolate ended while serving the request: ${messageOf(ending)}`,
  )
}

function codeOf(ending: Ending): PlatformCode {
  if (ending.kind === 'limit') return 'WORKER_LIMIT'
  return ending.kind === 'stopped' ? 'SERVICE_UNAVAILABLE' : 'WORKER_ERROR'
}

function idleTimeout(limits: HostLimits): Response {
  return platformError(
    'IDLE_TIMEOUT',
    `Request idle timeout limit (${limits.requestIdleMs / 1000}s) reached: the function sent no response`,
  )
}

/** Nobody reads it; 499 is what access logs know for it. */
function clientLeft(): Response {
  return new Response(null, { status: 499 })
}

function once(action: () => void): () => void {
  let done = false
  return () => {
    if (done) return
    done = true
    action()
  }
}
