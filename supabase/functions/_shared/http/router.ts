/** Finds the route that a request means. Hono reads the path and chooses; what happens then is `api.ts`'s own. */
import { Hono } from 'hono'
import { HoldfastError } from '../core/errors.ts'
import type { Method, Route } from './route.ts'

/** A route and its path parameters, decoded. */
export interface Found {
  route: Route
  params: Record<string, string>
}

/** Throws `NOT_FOUND`, or `METHOD_NOT_ALLOWED` that names the methods the path takes. */
export type Router = (request: Request) => Found

const methods: readonly Method[] = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']

/** A slash at the end of a path means nothing; `HEAD` means `GET`. */
export function createRouter(basePath: string, routes: readonly Route[]): Router {
  const app = new Hono({ strict: false }).basePath(basePath)
  const routeOf = new Map<unknown, Route>()
  for (const route of routes) {
    // Never called: to us, Hono's handler is the name of a route.
    const handler = () => new Response()
    app.on(route.method, route.path, handler)
    routeOf.set(handler, route)
  }

  function refusal(method: string, path: string): HoldfastError {
    const allowed = methods.filter((candidate) => app.router.match(candidate, path)[0].length > 0).join(', ')
    return allowed === ''
      ? new HoldfastError('NOT_FOUND', `There is no ${path} here`)
      : new HoldfastError('METHOD_NOT_ALLOWED', `${method} is not for ${path}: it takes ${allowed}`, {
        headers: { allow: allowed },
      })
  }

  return (request) => {
    const { method } = request
    const path = app.getPath(request)
    const [[found], values] = app.router.match(method === 'HEAD' ? 'GET' : method, path)
    if (found === undefined) throw refusal(method, path)
    const [[handler], places] = found
    return { route: routeOf.get(handler)!, params: readParams(places, values) }
  }
}

/** Hono gives a parameter itself, or its place among the values of the whole path. */
function readParams(
  places: Record<string, string | number>,
  values: readonly string[] = [],
): Record<string, string> {
  const params: Record<string, string> = {}
  for (const name in places) {
    const place = places[name]!
    const value = typeof place === 'number' ? values[place] : place
    if (value !== undefined) params[name] = decoded(value)
  }
  return params
}

/** A malformed escape stays as it was sent: the route's schema decides what it thinks of that. */
function decoded(text: string): string {
  if (!text.includes('%')) return text
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
