/*---
{ "package": "@nestjs/core", "version": "12.5.1", "tree": "nest",
  "also": { "@nestjs/common": "12.5.1", "@nestjs/platform-express": "12.5.1", "reflect-metadata": "0.2.2", "rxjs": "7.8.2" },
  "exercises": "a listening app: a controller, injection, a pipe, an exception",
  "request": { "method": "POST", "path": "/cats/3", "json": { "name": "Tom" } },
  "expect": { "status": 201, "json": { "id": 3, "name": "Tom" } } }
---*/
import "reflect-metadata";
import { Body, Controller, Injectable, Module, NotFoundException, Param, ParseIntPipe, Post } from "@nestjs/common";
import { NestFactory } from "@nestjs/core";

class Cats {
  make(id, name) {
    if (id === 0) throw new NotFoundException();
    return { id, name };
  }
}
class CatsController {
  constructor(cats) {
    this.cats = cats;
  }

  make(id, body) {
    return this.cats.make(id, body.name);
  }
}
class App {}

// As TypeScript does it for decorators.
const { prototype } = CatsController;
Injectable()(Cats);
Controller("cats")(CatsController);
Reflect.defineMetadata("design:paramtypes", [Cats], CatsController);
Post(":id")(prototype, "make", Object.getOwnPropertyDescriptor(prototype, "make"));
Param("id", ParseIntPipe)(prototype, "make", 0);
Body()(prototype, "make", 1);
Module({ controllers: [CatsController], providers: [Cats] })(App);

const app = await NestFactory.create(App, { logger: ["error"] });
await app.listen(3000);
