/** The one address of the local stack: sends every request to the service that its path names. */
import { LocalError } from '../errors.ts'
import { platformError } from '../functions/platformError.ts'
import { forwardedHeaders, requestIdOf } from './forwarding.ts'

/** A service behind the gateway. It sees the path without the route's prefix where `strip` says so. */
export interface Route {
  /** Path prefix without a slash at its end, for example `/functions/v1`. */
  prefix: string
  /** Part of the prefix that the service does not see. */
  strip: string
  fetch(request: Request, peerAddress: string): Promise<Response>
}

export interface GatewayOptions {
  /** 0 takes any free port. */
  port: number
  /** Answers `/`. */
  page(): Promise<Response>
}

export interface Gateway {
  url: string
  port: number
  /** Opens the routes; until then every request is answered 503. */
  open(routes: Route[]): void
  close(): Promise<void>
}

/** Listens on 127.0.0.1 only. A taken port is a {@linkcode LocalError}. */
export function startGateway({ port, page }: GatewayOptions): Gateway {
  let routes: Route[] | undefined

  async function answer(request: Request, peerAddress: string): Promise<Response> {
    const url = new URL(request.url)
    const requestId = requestIdOf(request.headers)
    const response = await route(request, url, requestId, peerAddress)
    return withRequestId(response, requestId)
  }

  async function route(
    request: Request,
    url: URL,
    requestId: string,
    peerAddress: string,
  ): Promise<Response> {
    if (routes === undefined) return platformError('SERVICE_UNAVAILABLE', 'The local stack is starting')
    const target = routes.find(({ prefix }) =>
      url.pathname === prefix || url.pathname.startsWith(`${prefix}/`)
    )
    if (target !== undefined) {
      const headers = forwardedHeaders(request.headers, { peerAddress, url, requestId })
      const inner = new URL(url)
      inner.pathname = url.pathname.slice(target.strip.length) || '/'
      return await target.fetch(
        new Request(inner, { method: request.method, headers, body: request.body, signal: request.signal }),
        peerAddress,
      )
    }
    if (url.pathname === '/' && ['GET', 'HEAD'].includes(request.method)) return await page()
    const known = routes.map(({ prefix }) => prefix).join(', ')
    return platformError('NOT_FOUND', `Nothing is served at ${url.pathname}; this gateway has ${known}`)
  }

  const stop = new AbortController()
  const server = listen(port, stop.signal, answer)
  return {
    url: `http://127.0.0.1:${server.addr.port}`,
    port: server.addr.port,
    open: (opened) => void (routes = opened),
    async close() {
      // Not shutdown(): that would wait for clients that keep their connections.
      stop.abort()
      await server.finished
    },
  }
}

function listen(
  port: number,
  signal: AbortSignal,
  answer: (request: Request, peerAddress: string) => Promise<Response>,
): Deno.HttpServer<Deno.NetAddr> {
  try {
    return Deno.serve(
      { hostname: '127.0.0.1', port, signal, onListen() {} },
      (request, info) => answer(request, info.remoteAddr.hostname),
    )
  } catch (cause) {
    if (!(cause instanceof Deno.errors.AddrInUse)) throw cause
    throw new LocalError(`Cannot start the gateway: port ${port} is in use`, {
      where: `127.0.0.1:${port}`,
      fix:
        'Stop what listens there (`npm run stop` ends a stack that was left running), or choose another with --port N.',
      cause,
    })
  }
}

function withRequestId(response: Response, requestId: string): Response {
  const headers = new Headers(response.headers)
  headers.set('x-request-id', requestId)
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers })
}
