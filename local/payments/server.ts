/**
 * A payment provider over HTTP, small and breakable on purpose.
 *
 *     POST /charges   { amountMinor, currency, token, reference? }   201; token "tok_declined": 402 card_declined
 *     POST /refunds   { chargeId }                                   201; again: the same refund
 *     GET  /charges   { data: [charge with refunded] }               the ledger, oldest first; ?reference= narrows it
 *     POST /_control  { mode, status?, delayMs?, next? }             how the next calls are treated
 *     GET  /_control  the control in force
 *     GET  /_control/log  { data: [{ method, path, at, key, mode }] }  every call received, oldest first
 *
 * `Idempotency-Key` is honoured by both POSTs: the same answer again, marked `Idempotency-Replayed: true`.
 *
 * | mode | what happens to a call | is it booked? |
 * | --- | --- | --- |
 * | ok | answered | yes |
 * | fail | `status` (500) at once | no |
 * | slow | answered after `delayMs` (2000) | yes, at once |
 * | hang | never answered, until the client leaves or the server closes | yes, at once: the nasty case |
 *
 * `next: n` applies the mode to the next n calls and then returns to ok. Reading the ledger is a call; `_control` is not.
 */
import { z } from 'zod'
import { LocalError } from '../errors.ts'
import type { Answer } from './ledger.ts'
import { chargeSchema, Ledger, refundSchema, refusal } from './ledger.ts'

export interface PaymentsServer {
  url: string
  close(): Promise<void>
}

const controlSchema = z.strictObject({
  mode: z.enum(['ok', 'fail', 'hang', 'slow']),
  status: z.int().min(400).max(599).optional(),
  delayMs: z.int().min(0).max(600_000).optional(),
  next: z.int().positive().optional(),
})
type Control = z.infer<typeof controlSchema>

interface LoggedCall {
  method: string
  path: string
  at: string
  key: string | null
  mode: Control['mode']
}

const defaults = { failStatus: 500, slowMs: 2_000 }

/** Listens on 127.0.0.1; port 0 takes any free one. Its ledger lives as long as the server. */
export function startPayments({ port }: { port: number }): Promise<PaymentsServer> {
  const ledger = new Ledger()
  const calls: LoggedCall[] = []
  let control: Control = { mode: 'ok' }

  /** The control for one call; counts `next` down. */
  function takeControl(): Control {
    const taken = control
    if (taken.next !== undefined) {
      control = taken.next > 1 ? { ...taken, next: taken.next - 1 } : { mode: 'ok' }
    }
    return taken
  }

  async function answer(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url)
    if (pathname === '/_control/log') return Response.json({ data: calls })
    if (pathname === '/_control') return await setControl(request)
    const taken = takeControl()
    const key = request.headers.get('idempotency-key')
    calls.push({
      method: request.method,
      path: pathname,
      at: new Date().toISOString(),
      key,
      mode: taken.mode,
    })
    if (taken.mode === 'fail') {
      return toResponse(refusal(taken.status ?? defaults.failStatus, 'provider_error', 'The provider failed'))
    }
    const booked = await book(request, pathname, key)
    if (taken.mode === 'slow') await until(taken.delayMs ?? defaults.slowMs, request.signal, stop.signal)
    if (taken.mode === 'hang') await until(undefined, request.signal, stop.signal)
    return toResponse(booked)
  }

  async function book(request: Request, pathname: string, key: string | null): Promise<Answer> {
    switch (`${request.method} ${pathname}`) {
      case 'GET /charges':
        return {
          status: 200,
          body: { data: ledger.charges(new URL(request.url).searchParams.get('reference')) },
        }
      case 'POST /charges':
        return await bookOnce(request, key, chargeSchema, (charge) => ledger.charge(charge))
      case 'POST /refunds':
        return await bookOnce(request, key, refundSchema, (refund) => ledger.refund(refund))
      default:
        return refusal(404, 'not_found', `Nothing at ${request.method} ${pathname}`)
    }
  }

  async function bookOnce<T>(
    request: Request,
    key: string | null,
    schema: z.ZodType<T>,
    work: (input: T) => Answer,
  ): Promise<Answer> {
    const parsed = schema.safeParse(await request.json().catch(() => undefined))
    if (!parsed.success) return refusal(400, 'invalid_request', z.prettifyError(parsed.error))
    const path = new URL(request.url).pathname
    return ledger.once(key, { path, body: parsed.data }, () => work(parsed.data))
  }

  async function setControl(request: Request): Promise<Response> {
    if (request.method === 'GET') return Response.json(control)
    const parsed = controlSchema.safeParse(await request.json().catch(() => undefined))
    if (!parsed.success) return toResponse(refusal(400, 'invalid_request', z.prettifyError(parsed.error)))
    control = parsed.data
    return Response.json(control)
  }

  const stop = new AbortController()
  const server = listen(port, stop.signal, answer)
  return Promise.resolve({
    url: `http://127.0.0.1:${server.addr.port}`,
    async close() {
      stop.abort()
      await server.finished
    },
  })
}

function listen(port: number, signal: AbortSignal, answer: (request: Request) => Promise<Response>) {
  try {
    return Deno.serve({ hostname: '127.0.0.1', port, signal, onListen() {} }, answer)
  } catch (cause) {
    if (!(cause instanceof Deno.errors.AddrInUse)) throw cause
    throw new LocalError(`Cannot start the payments stand-in: port ${port} is in use`, {
      where: `127.0.0.1:${port}`,
      fix: 'Stop what listens there, or choose another port for the stack with --port N.',
      cause,
    })
  }
}

function toResponse({ status, body, replayed = false }: Answer): Response {
  const headers: Record<string, string> = replayed ? { 'idempotency-replayed': 'true' } : {}
  return Response.json(body, { status, headers })
}

/** Waits that long, or without end, but no longer than one of the signals allows. */
function until(ms: number | undefined, ...signals: AbortSignal[]): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const timer = ms === undefined ? undefined : setTimeout(resolve, ms)
  for (const signal of signals) {
    if (signal.aborted) resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  }
  return promise.finally(() => clearTimeout(timer))
}
