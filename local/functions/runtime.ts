/**
 * Runs inside every isolate, before and around one function: connects to the host, hides what the platform
 * does not have, loads the entry point and serves it. It ends when the host is gone, whatever the reason.
 */
import type { Delivery, FromIsolate, IsolateSetup, RetireReason, ToIsolate } from './protocol.ts'
import { deliveryHeader, encodingHeader, setupVariable } from './protocol.ts'

type Handler = (request: Request, info: Deno.ServeHandlerInfo) => Response | Promise<Response>
interface Serving {
  handler: Handler
  options: Deno.ServeOptions
}

/** How long after the end of its module a function may still call `Deno.serve`. */
const serveGraceMs = 1_000
/** What code that never chose a port sees in `onListen` and `server.addr`. */
const publicAddress: Deno.NetAddr = { transport: 'tcp', hostname: '0.0.0.0', port: 9999 }

const native = { serve: Deno.serve, exit: Deno.exit }
const setup: IsolateSetup = JSON.parse(Deno.env.get(setupVariable) ?? '{}')
const control = await openControl()

/**
 * Requests under way, to be aborted when their clients leave. The host says so: a response that is being streamed may
 * be cancelled without an abort of Deno's own signal.
 */
const underWay = new Map<string, AbortController>()
let waiting = 0
let retiring = false
const served = Promise.withResolvers<void>()
let serving: Serving | undefined

hideHost()
offerPlatform()
await boot()

async function boot(): Promise<void> {
  try {
    const module: unknown = await import(setup.entrypoint)
    const exported = handlerOf(module)
    if (serving === undefined && exported !== undefined) startServing({ handler: exported, options: {} })
    if (serving === undefined) await withinGrace(served.promise)
    if (serving === undefined) await fail('it neither exports default { fetch } nor calls Deno.serve()')
    await control.send({ type: 'ready' })
  } catch (error) {
    await fail(describe(error))
  }
}

async function fail(message: string): Promise<never> {
  await control.send({ type: 'bootError', message })
  return native.exit(1)
}

/** The handler of `export default { fetch }`, with its `this`. */
function handlerOf(module: unknown): Handler | undefined {
  if (typeof module !== 'object' || module === null || !('default' in module)) return undefined
  const target = module.default
  if (
    (typeof target !== 'object' && typeof target !== 'function') || target === null || !('fetch' in target)
  ) {
    return undefined
  }
  const { fetch } = target
  return typeof fetch === 'function' ? (request, info) => fetch.call(target, request, info) : undefined
}

async function withinGrace(promise: Promise<void>): Promise<void> {
  const grace = Promise.withResolvers<void>()
  const timer = setTimeout(grace.resolve, serveGraceMs)
  await Promise.race([promise, grace.promise])
  clearTimeout(timer)
}

function startServing(next: Serving): Deno.HttpServer<Deno.NetAddr> {
  if (serving !== undefined) {
    throw new Deno.errors.AddrInUse('Deno.serve() was called twice: a function has one handler')
  }
  serving = next
  const server = native.serve(
    { path: setup.servePath, signal: next.options.signal, onError: next.options.onError, onListen() {} },
    (request, info) => serve(next.handler, request, info),
  )
  next.options.onListen?.(publicAddress)
  served.resolve()
  return {
    addr: publicAddress,
    finished: server.finished,
    shutdown: () => server.shutdown(),
    ref: () => server.ref(),
    unref: () => server.unref(),
    [Symbol.asyncDispose]: () => server.shutdown(),
  }
}

async function serve(
  handler: Handler,
  request: Request,
  info: Deno.ServeHandlerInfo<Deno.Addr>,
): Promise<Response> {
  const header = request.headers.get(deliveryHeader)
  if (header === null) return new Response('Requests reach a function through the gateway', { status: 421 })
  const delivery: Delivery = JSON.parse(header)
  const clientLeft = new AbortController()
  underWay.set(delivery.id, clientLeft)
  request.signal.addEventListener('abort', () => clientLeft.abort(request.signal.reason))
  const done = () => {
    underWay.delete(delivery.id)
    leaveWhenIdle()
  }
  info.completed.then(done, done)
  // Awaited: should the handler end this process at once, the host must already know that it has seen the request.
  await control.send({ type: 'started', id: delivery.id })
  const response = await handler(
    new Request(request.url, {
      method: request.method,
      headers: delivery.headers,
      body: request.body,
      signal: clientLeft.signal,
    }),
    {
      remoteAddr: { transport: 'tcp', hostname: delivery.peerAddress, port: 0 },
      completed: info.completed,
    },
  )
  return keepEncoding(response)
}

function keepEncoding(response: Response): Response {
  const encoding = response instanceof Response ? response.headers.get('content-encoding') : null
  if (encoding === null) return response
  const headers = new Headers(response.headers)
  headers.delete('content-encoding')
  headers.set(encodingHeader, encoding)
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers })
}

/** Variables that only Deno's own start needed. */
function hideHost(): void {
  for (const name of [setupVariable, ...setup.hiddenVariables]) Deno.env.delete(name)
}

function offerPlatform(): void {
  // Hosted isolates have no workers; a function that needs one shall fail here too.
  Reflect.deleteProperty(globalThis, 'Worker')
  Object.defineProperty(globalThis, 'EdgeRuntime', {
    value: Object.freeze({ waitUntil }),
    enumerable: false,
    configurable: true,
  })
  Object.defineProperty(Deno, 'serve', { value: denoServe, writable: true, configurable: true })
}

/** `Deno.serve` in each of its shapes: (handler), (options, handler), ({ handler, ...options }), ({ fetch }). */
function denoServe(first: unknown, second?: unknown): Deno.HttpServer<Deno.NetAddr> {
  if (isHandler(first)) return startServing({ handler: first, options: optionsOf(second) })
  if (isHandler(second)) return startServing({ handler: second, options: optionsOf(first) })
  if (typeof first === 'object' && first !== null) {
    const named = 'handler' in first ? first.handler : 'fetch' in first ? first.fetch : undefined
    if (isHandler(named)) {
      return startServing({
        handler: (request, info) => named.call(first, request, info),
        options: optionsOf(first),
      })
    }
  }
  throw new TypeError('Cannot serve: Deno.serve() takes a handler, options and a handler, or { handler }')
}

function isHandler(value: unknown): value is Handler {
  return typeof value === 'function'
}

function optionsOf(value: unknown): Deno.ServeOptions {
  return typeof value === 'object' && value !== null ? value : {}
}

/** Keeps the isolate until `work` has settled, or until the wall clock ends it. */
async function waitUntil<Result>(work: Promise<Result>): Promise<Result> {
  report(1)
  try {
    return await work
  } finally {
    report(-1)
    leaveWhenIdle()
  }

  function report(change: number): void {
    waiting += change
    void control.send({ type: 'waiting', count: waiting })
  }
}

function retire(reason: RetireReason): void {
  retiring = true
  globalThis.dispatchEvent(new CustomEvent('beforeunload', { detail: { reason } }))
  leaveWhenIdle()
}

function leaveWhenIdle(): void {
  if (retiring && underWay.size === 0 && waiting === 0) native.exit(0)
}

/** The error's name, message and place; the host turns file URLs into paths. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return `Uncaught ${Deno.inspect(error)}`
  // Deno wraps what it found while loading: "TypeError: SyntaxError: ..." and the like.
  const text = /^[A-Z]\w*Error: /.test(error.message) ? error.message : `${error.name}: ${error.message}`
  if (/file:\/\/\S+:\d+:\d+/.test(text)) return text
  const place = error.stack?.match(/file:\/\/[^\s)]+:\d+:\d+/)?.[0]
  return place === undefined ? text : `${text}\n    at ${place}`
}

/** A line-by-line JSON conversation with the host; its end is the end of this process. */
async function openControl(): Promise<{ send(message: FromIsolate): Promise<void> }> {
  const connection = await Deno.connect({ transport: 'unix', path: setup.controlPath })
  let outgoing = ''
  let flushing: Promise<void> | undefined
  async function flush(): Promise<void> {
    while (outgoing !== '') {
      let bytes = new TextEncoder().encode(outgoing)
      outgoing = ''
      while (bytes.length > 0) bytes = bytes.subarray(await connection.write(bytes))
    }
    flushing = undefined
  }
  function send(message: FromIsolate): Promise<void> {
    outgoing += `${JSON.stringify(message)}\n`
    flushing ??= flush().catch(() => native.exit(0))
    return flushing
  }
  async function listen(): Promise<void> {
    let text = ''
    for await (const chunk of connection.readable.pipeThrough(new TextDecoderStream())) {
      const lines = (text + chunk).split('\n')
      text = lines.pop() ?? ''
      for (const line of lines) obey(JSON.parse(line))
    }
  }
  function obey(message: ToIsolate): void {
    if (message.type === 'ping') void send({ type: 'pong' })
    else if (message.type === 'retire') retire(message.reason)
    else underWay.get(message.id)?.abort(new DOMException('The client has left', 'AbortError'))
  }
  listen().catch(() => {}).finally(() => native.exit(0))
  await send({ type: 'hello', id: setup.id })
  return { send }
}
